"""The kernels of a TensorRT engine, and which of them is each convolution or matrix product."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgekd.backends._onnx.qdq import MATMULS, FileGraph
from edgekd.core.types import LayerRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx

    from edgekd.core.types import Precision, Role

_ORIGIN = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
#: kernels from a library of matrix products, by their own type or that of their parameters
LIBRARY = re.compile(r"conv|correlation|gemm|matmul|matrixmultiply|fullyconnected", re.IGNORECASE)
#: move values or convert them, whatever their names say about the layers beside them
_MOVES = frozenset({"Constant", "NoOp", "Reformat", "Shuffle"})
#: in this order: "BFloat16" is no "Float"
_PRECISIONS: tuple[tuple[re.Pattern[str], Precision], ...] = (
    (re.compile(r"\bInt8\b", re.IGNORECASE), "int8"),
    (re.compile(r"\bInt4\b", re.IGNORECASE), "int4"),
    (re.compile(r"\b(BFloat16|BF16)\b", re.IGNORECASE), "bfloat16"),
    (re.compile(r"\b(Half|FP16)\b", re.IGNORECASE), "float16"),
    (re.compile(r"\b(Float|FP32)\b", re.IGNORECASE), "float32"),
)
_UNTOLD = "the engine names no kernel for it"


@dataclass(frozen=True, slots=True)
class Kernel:
    """One layer of an engine as TensorRT describes it.

    Attributes:
        name: Its name.
        op: Its type, and that of its parameters behind it where it has one.
        takes: Formats or data types of its inputs.
        makes: Of its outputs.
        weights: Data type of its weights; "" without.
        metadata: Says which nodes of the file it holds.
        is_boundary: It reads an input of the graph, or writes an output.
        time_us: Mean time per inference; None where nothing was run.
    """

    name: str
    op: str
    takes: tuple[str, ...]
    makes: tuple[str, ...]
    weights: str = ""
    metadata: str = ""
    is_boundary: bool = False
    time_us: float | None = None

    def precision(self) -> Precision:
        """What it computes in; int8 only if its weights, where it tells them, are int8 too."""
        values = _named(self.takes[0]) if self.takes else "other"
        weights = _named(self.weights) if self.weights else values
        return values if values == weights else "other"

    def origins(self) -> list[str]:
        """Names of nodes that it holds; older versions join them into its own name."""
        return _ORIGIN.findall(self.metadata) or self.name.split(" + ")


def records(kernels: Sequence[Kernel], model: onnx.ModelProto) -> list[LayerRecord]:
    """Every kernel in order, and each convolution or matrix product of the file once.

    Its kernel is one from the library, or where there is none the first one that holds a part of
    it. A kernel that holds several is repeated, with its time at the first.

    Args:
        kernels: Of the engine.
        model: The file it was built from; every node has a name.
    """
    source = FileGraph(model)
    held = [[n for n in kernel.origins() if source.is_matmul(n)] for kernel in kernels]
    owner: dict[str, int] = {}
    for from_library in (True, False):
        for index, (kernel, names) in enumerate(zip(kernels, held, strict=True)):
            if kernel.op.split()[0] in _MOVES or bool(LIBRARY.search(kernel.op)) != from_library:
                continue
            for name in names:
                owner.setdefault(name, index)
    found: list[LayerRecord] = []
    for index, (kernel, names) in enumerate(zip(kernels, held, strict=True)):
        owned = [name for name in dict.fromkeys(names) if owner.get(name) == index]
        found += [_matmul(kernel, name, source, first=name == owned[0]) for name in owned]
        if not owned:
            role: Role = "requantize" if _requantizes(kernel) else "other"
            found.append(
                LayerRecord(kernel.name, kernel.op, role, kernel.precision(), kernel.time_us)
            )
    untold = [n.name for n in model.graph.node if n.op_type in MATMULS and n.name not in owner]
    return [*found, *(LayerRecord(n, "?", "matmul", "other", reason=_UNTOLD) for n in untold)]


def with_names(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model, every node of its main graph with a name."""
    for node in model.graph.node:
        node.name = node.name or node.output[0]
    return model


def _matmul(kernel: Kernel, origin: str, source: FileGraph, *, first: bool) -> LayerRecord:
    precision = kernel.precision()
    node = source.origin(origin)
    reason = "" if precision == "int8" or node is None else source.why_float(node, strict=False)
    name = kernel.name if kernel.name == origin else f"{kernel.name} [{origin}]"
    time_us = kernel.time_us if first else None
    return LayerRecord(name, kernel.op, "matmul", precision, time_us, reason)


def _requantizes(kernel: Kernel) -> bool:
    """Whether it only takes values to or from int8, inside the graph."""
    if kernel.op.split()[0] not in _MOVES or kernel.is_boundary:
        return False
    sides = [{_named(text) == "int8" for text in side} for side in (kernel.takes, kernel.makes)]
    return sides in ([{True}, {False}], [{False}, {True}])


def _named(text: str) -> Precision:
    return next((p for pattern, p in _PRECISIONS if pattern.search(text)), "other")
