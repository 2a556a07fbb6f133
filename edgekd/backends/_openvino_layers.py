"""What OpenVINO really executes: its runtime model and performance counters."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from edgekd.backends._onnx.file import check
from edgekd.backends._onnx.qdq import FileGraph
from edgekd.backends.openvino import OpenVinoSession, compiled, device, properties
from edgekd.core.types import LayerRecord

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from edgekd.backends._contract import Feeds
    from edgekd.core.target import Target
    from edgekd.core.types import Precision, Role

_RUNS = 10
_MATMULS = frozenset({
    "BinaryConvolution", "Convolution", "Deconvolution", "DeformableConvolution",
    "FullyConnected", "MatMul", "RNNCell", "RNNSeq", "ScaledDotProductAttention",
})  # fmt: skip
#: move or convert values; a Reorder changes the layout, the precision, or both
_MOVES = frozenset({"Convert", "FakeQuantize", "Reorder", "Reshape", "Transpose"})
_INT8 = frozenset({"i8", "u8"})
_FLOAT = frozenset({"f32", "bf16", "f16"})
_PRECISIONS: dict[str, Precision] = {
    "u8": "int8",
    "i8": "int8",
    "f32": "float32",
    "bf16": "bfloat16",
    "f16": "float16",
    "u4": "int4",
    "i4": "int4",
}


class _Node:
    """One node of the runtime model.

    Args:
        plain: Its name, type, facts, inputs and users, as `_plain` gives them.
        constants: Names of the nodes before it whose value is known when compiling.
    """

    def __init__(self, plain: Mapping[str, Any], constants: set[str]) -> None:
        facts: dict[str, str] = plain["facts"]
        self.name: str = plain["name"]
        self.op: str = facts.get("layerType", plain["type"])
        self.precision: str = facts.get("runtimePrecision", "")
        self.makes: str = facts.get("outputPrecisions", "").partition(",")[0]
        self.swallowed = [n for n in facts.get("originalLayersNames", "").split(",") if n]
        inputs: list[str] = plain["inputs"]
        self.inputs = [name for name in inputs if name not in constants]
        self.constant = self.op == "Const" or bool(inputs and not self.inputs)
        self.users: list[str] = plain["users"]


def layers(path: Path, target: Target, feeds: Feeds, *, threads: int) -> Sequence[LayerRecord]:
    """Every node that runs, in execution order, with its mean time over 10 runs after a first.

    The file is compiled a second time, since the counters cost time themselves.
    """
    outline = check(path)
    wanted = {**properties(target, threads), "PERF_COUNT": True}
    inner = compiled(path, path, device(target), wanted)
    with OpenVinoSession(inner, path, outline.inputs, outline.outputs) as session:
        times = _mean_times_us(session, feeds)
    return _records(
        path, [_plain(op) for op in inner.get_runtime_model().get_ordered_ops()], times
    )


def read(path: Path, reading: bytes) -> Sequence[LayerRecord]:
    """Every node that runs, from JSON: ``nodes`` of the runtime model and ``times_us`` of each."""
    found = json.loads(reading)
    return _records(path, found["nodes"], found["times_us"])


def _records(
    path: Path, plain: Sequence[Mapping[str, Any]], times: Mapping[str, float]
) -> list[LayerRecord]:
    nodes = _nodes(plain)
    source = FileGraph(onnx.load(path, load_external_data=False))
    return [
        _record(node, nodes, source, times.get(node.name))
        for node in nodes.values()
        if node.op not in ("Input", "Output")
    ]


def _plain(op: Any) -> dict[str, Any]:
    """One of OpenVINO's nodes in plain values."""
    return {
        "name": op.get_friendly_name(),
        "type": op.get_type_name(),
        "facts": {key: value.astype(str) for key, value in op.get_rt_info().items()},
        "inputs": [i.get_node().get_friendly_name() for i in op.input_values()],
        "users": [
            t.get_node().get_friendly_name() for o in op.outputs() for t in o.get_target_inputs()
        ],
    }


def _nodes(plain: Sequence[Mapping[str, Any]]) -> dict[str, _Node]:
    """The nodes that run at every inference, in execution order."""
    constants: set[str] = set()
    found = {}
    for one in plain:
        node = _Node(one, constants)
        if node.constant:
            constants.add(node.name)
        else:
            found[node.name] = node
    return found


def _mean_times_us(session: OpenVinoSession, feeds: Feeds) -> dict[str, float]:
    session.run(feeds)
    runs: list[dict[str, float]] = []
    for _ in range(_RUNS):
        session.run(feeds)
        runs.append(session.node_times_us())
    return {name: float(np.mean([run.get(name, 0.0) for run in runs])) for name in runs[0]}


def _record(
    node: _Node, nodes: dict[str, _Node], source: FileGraph, time_us: float | None
) -> LayerRecord:
    precision = _PRECISIONS.get(node.precision, "other")
    # a Subgraph is a piece of the graph compiled as one kernel, attention for example
    fused = node.op == "Subgraph" and any(map(source.is_matmul, node.swallowed))
    if node.op not in _MATMULS and not fused:
        role: Role = "requantize" if _requantizes(node, nodes, source) else "other"
        return LayerRecord(node.name, node.op, role, precision, time_us)
    title, origin = source.title(node.name, node.swallowed)
    reason = ""
    if precision != "int8":
        if origin is not None:
            reason = source.why_float(origin, strict=False)
        elif node.op.startswith("RNN"):
            reason = f"{node.op} is not quantized"
    return LayerRecord(title, node.op, "matmul", precision, time_us, reason)


def _requantizes(node: _Node, nodes: dict[str, _Node], source: FileGraph) -> bool:
    """Whether a node only takes values to or from 8 bits, inside the graph."""
    if len(node.inputs) != 1:
        return False
    before = nodes[node.inputs[0]]
    if _from_input(before, nodes) or _to_output(node, nodes):
        return False
    if node.op == "FakeQuantize":
        return True
    takes, makes = before.makes, node.makes
    crosses = (takes in _FLOAT and makes in _INT8) or (takes in _INT8 and makes in _FLOAT)
    if node.op in ("Convert", "Reorder"):
        # behind a FakeQuantize it is the second half of that
        return crosses and before.op != "FakeQuantize"
    return crosses and source.only_qdq(node.swallowed)


def _from_input(node: _Node, nodes: dict[str, _Node]) -> bool:
    while node.op in _MOVES:
        node = nodes[node.inputs[0]]
    return node.op == "Input"


def _to_output(node: _Node, nodes: dict[str, _Node]) -> bool:
    following = [nodes[n] for n in node.users]
    return bool(following) and all(
        n.op == "Output" or (n.op in _MOVES and _to_output(n, nodes)) for n in following
    )
