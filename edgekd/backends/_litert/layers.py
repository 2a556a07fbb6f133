"""Every operator of a .tflite file as LiteRT really runs it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekd.backends._litert.times import timed
from edgekd.backends._onnx.qdq import FLOAT_SECOND, FLOAT_WEIGHTS
from edgekd.core.types import LayerRecord

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from edgekd.core.types import Precision, Role

_DELEGATE = "DELEGATE"
_MATMULS = frozenset({
    "BATCH_MATMUL", "CONV_2D", "CONV_3D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED",
    "TRANSPOSE_CONV", "UNIDIRECTIONAL_SEQUENCE_LSTM",
})  # fmt: skip
_GRIDS = frozenset({"DEQUANTIZE", "QUANTIZE"})
#: they move values and compute nothing
_MOVES = frozenset({"PAD", "PADV2", "RESHAPE", "TRANSPOSE"})
_FLOAT = "input and weights are float"
_NO_GRID = "no QuantizeLinear on its output"
#: what the writer calls the weights of a layer, after the layer's own name
_WEIGHT = "/weight"


def layer_records(
    interpreter: Any, reasons: Mapping[str, str], kernels: Sequence[tuple[str, float]]
) -> Iterator[LayerRecord]:
    """A record for each operator.

    Args:
        interpreter: Of LiteRT, with ``experimental_disable_delegate_node_fusion``: then every
            operator that XNNPACK takes shows as a delegate of its own.
        reasons: Why a layer is in float, by its name.
        kernels: Names and mean times in us of what ran, in order; none where they are not known.
    """
    graph = _Graph(interpreter)
    taken: set[str] = set()
    for record in timed([graph.record(op, reasons) for op in graph.ops], kernels):
        name = record.name
        while name in taken:
            name += "+"
        taken.add(name)
        yield replace(record, name=name)


class _Graph:
    def __init__(self, interpreter: Any) -> None:
        every = interpreter._get_ops_details()
        self.ops = [op for op in every if op["op_name"] != _DELEGATE]
        self._xnnpack = {
            int(i) for op in every if op["op_name"] == _DELEGATE for i in op["outputs"]
        }
        self._tensors = {t["index"]: t for t in interpreter.get_tensor_details()}
        self._ends = {t["index"] for t in interpreter.get_input_details()}
        self._ends |= {t["index"] for t in interpreter.get_output_details()}
        self._users: dict[int, list[Any]] = {}
        self._makers: dict[int, Any] = {}
        for op in self.ops:
            self._makers.update({int(i): op for i in op["outputs"]})
            for index in op["inputs"]:
                self._users.setdefault(int(index), []).append(op)

    def record(self, op: Any, reasons: Mapping[str, str]) -> LayerRecord:
        kind, made = op["op_name"], int(op["outputs"][0])
        by = "XNNPACK" if made in self._xnnpack else "builtin"
        name = str(self._tensors[made]["name"])
        precision: Precision = "int8" if self._is_int8(op) else "float32"
        if kind not in _MATMULS:
            return LayerRecord(name, f"{by} {kind}", self._role(op), precision)
        weights = str(self._tensors[int(op["inputs"][1])]["name"])
        if weights.endswith(_WEIGHT):
            name = weights.removesuffix(_WEIGHT)
        reason = "" if precision == "int8" else reasons.get(name) or self._why_float(op)
        return LayerRecord(name, f"{by} {kind}", "matmul", precision, None, reason)

    def _is_int8(self, op: Any) -> bool:
        """Whether it computes on codes; those of its input may be found while it runs."""
        place = 1 if op["op_name"] in _MATMULS else 0
        return bool(self._dtype(op, place) == np.int8 and op["op_name"] != "DEQUANTIZE")

    def _role(self, op: Any) -> Role:
        if op["op_name"] not in _GRIDS:
            return "other"
        before = self._beyond(int(op["inputs"][0]), forward=False)
        after = self._beyond(int(op["outputs"][0]), forward=True)
        # a float result has its price at the graph's output, or in front of the last kernel
        dynamic = op["op_name"] == "DEQUANTIZE" and all(
            user["op_name"] == "FULLY_CONNECTED" and self._is_int8(user)
            for user in self._users.get(after, [])
        )
        return "other" if self._ends & {before, after} or dynamic else "requantize"

    def _beyond(self, index: int, *, forward: bool) -> int:
        """The tensor on the other side of operators that only move values."""
        while index not in self._ends:
            ops = self._users.get(index, []) if forward else [self._makers.get(index)]
            if len(ops) != 1 or ops[0] is None or ops[0]["op_name"] not in _MOVES:
                return index
            index = int(ops[0]["outputs" if forward else "inputs"][0])
        return index

    def _why_float(self, op: Any) -> str:
        makers = [self._makers.get(int(i)) for i in op["inputs"][:2]]
        decoded = [m is not None and m["op_name"] == "DEQUANTIZE" for m in makers]
        if decoded[0]:
            return _NO_GRID if makers[1] is None else FLOAT_SECOND
        return _FLOAT if makers[1] is None else FLOAT_WEIGHTS

    def _dtype(self, op: Any, place: int) -> Any:
        return self._tensors[int(op["inputs"][place])]["dtype"]
