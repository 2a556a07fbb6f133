"""What ONNX Runtime really executes: its profile, explained by its optimized graph."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from edgekd.backends._onnx.qdq import (
    FLOAT_MATMULS,
    INT8_MATMULS,
    LAYOUT_OPS,
    MATMULS,
    QDQ,
    FileGraph,
)
from edgekd.backends.onnxruntime import OnnxRuntimeSession, load, provider, session_options
from edgekd.core.types import LayerRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgekd.backends._contract import Feeds
    from edgekd.core.target import Target
    from edgekd.core.types import Precision, Role

_RUNS = 10
_KERNEL = re.compile(r"^(.*)_kernel_time$")
_PRECISIONS: dict[str, Precision] = {
    "float": "float32",
    "float16": "float16",
    "bfloat16": "bfloat16",
}
#: of MatMulNBits: activations are rounded to int8 and multiplied as integers
_INT8_ACCURACY_LEVEL = 4


def layers(path: Path, target: Target, feeds: Feeds, *, threads: int) -> Sequence[LayerRecord]:
    """Every node that ran, in execution order, with its mean time over 10 runs after a first.

    Nodes without a name get one first, because the profile knows nodes by name alone.
    """
    model = named(path)
    options = session_options(target, threads)
    with tempfile.TemporaryDirectory(prefix="edgekd-layers-") as folder:
        optimized = Path(folder) / "optimized.onnx"
        options.optimized_model_filepath = str(optimized)
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(path.parent.resolve())
        )
        inner = load(model.SerializeToString(), path, options, provider(target))
        with OnnxRuntimeSession(inner, path) as session:
            for _ in range(_RUNS + 1):
                session.run(feeds)
        events = Path(inner.end_profiling()).read_bytes()
        graph = optimized.read_bytes()
    return read(model, events, graph)


def named(path: Path) -> Any:
    """The model, its data files left beside it, with a name for every node."""
    model = onnx.load(path, load_external_data=False)
    _name_all(model.graph)
    return model


def read(model: Any, events: bytes, optimized: bytes) -> Sequence[LayerRecord]:
    """Every node that ran.

    Args:
        model: Of `named`.
        events: The runtime's trace of 11 runs of it, JSON.
        optimized: The graph that the runtime made of it.
    """
    graph = onnx.load_from_string(optimized).graph
    source = FileGraph(model)
    inside = _inside(graph)
    nodes = {node.name: node for node in graph.node}
    return [
        _record(event, nodes.get(event["name"]), inside, source)
        for event in _executed(json.loads(events))
    ]


def _record(
    event: dict[str, Any], node: Any | None, inside: set[str], source: FileGraph
) -> LayerRecord:
    op, name = event["op"], event["name"]
    if op in QDQ:
        # nodes that are not in the main graph belong to a branch or loop, which has no boundary
        standing = name in inside or node is None
        role: Role = "requantize" if standing else "other"
        return LayerRecord(name, op, role, event["precision"], event["time_us"])
    if op not in MATMULS:
        return LayerRecord(name, op, "other", event["precision"], event["time_us"])
    precision = _precision(op, node, event["precision"])
    title, origin = source.title(name, node.output if node is not None else ())
    reason = ""
    if precision != "int8" and origin is not None:
        reason = source.why_float(origin, strict=True)
    return LayerRecord(title, op, "matmul", precision, event["time_us"], reason)


def _precision(op: str, node: Any | None, made: Precision) -> Precision:
    if op in INT8_MATMULS:
        return "int8"
    if op in FLOAT_MATMULS:
        return made
    levels = [a.i for a in node.attribute if a.name == "accuracy_level"] if node else []
    return "int8" if levels == [_INT8_ACCURACY_LEVEL] else made


def _inside(graph: Any) -> set[str]:
    """Names of Q/DQ nodes that are neither at the graph's boundary nor decode constants."""
    makers = {output: node for node in graph.node for output in node.output}
    users: dict[str, list[Any]] = {}
    for node in graph.node:
        for tensor in node.input:
            users.setdefault(tensor, []).append(node)
    inputs = {i.name for i in graph.input} | {i.name for i in graph.initializer}
    outputs = {o.name for o in graph.output}

    def from_outside(tensor: str) -> bool:
        while tensor in makers and makers[tensor].op_type in LAYOUT_OPS:
            tensor = makers[tensor].input[0]
        if tensor in makers and makers[tensor].op_type == "Constant":
            return True
        return tensor in inputs

    def to_outside(tensor: str) -> bool:
        following = users.get(tensor, [])
        return (tensor in outputs or bool(following)) and all(
            node.op_type in LAYOUT_OPS and to_outside(node.output[0]) for node in following
        )

    constants = {i.name for i in graph.initializer}

    def at_boundary(node: Any) -> bool:
        if node.op_type == "QuantizeLinear":
            return from_outside(node.input[0])
        return node.input[0] in constants or to_outside(node.output[0])

    return {n.name for n in graph.node if n.op_type in QDQ and not at_boundary(n)}


def _executed(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Nodes in execution order; their times are means over all runs but the first."""
    runs = sorted(e["ts"] for e in events if e.get("name") == "model_run")
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for event in sorted((e for e in events if e.get("cat") == "Node"), key=lambda e: e["ts"]):
        match = _KERNEL.match(event["name"])
        if match is None:
            continue
        args = event["args"]
        key = (match.group(1), args["op_name"], args.get("node_index", ""))
        entry = found.setdefault(
            key,
            {
                "name": key[0],
                "op": key[1],
                "precision": _made(args.get("output_type_shape", [])),
                "total_us": 0.0,
            },
        )
        if event["ts"] >= runs[1]:
            entry["total_us"] += event["dur"]
    for entry in found.values():
        entry["time_us"] = float(np.round(entry.pop("total_us") / _RUNS, 3))
    return list(found.values())


def _made(outputs: list[dict[str, Any]]) -> Precision:
    kind = next(iter(outputs[0]), "") if outputs else ""
    return "int8" if kind in ("uint8", "int8") else _PRECISIONS.get(kind, "other")


def _name_all(graph: Any, taken: set[str] | None = None) -> None:
    """Give every node, also those in branches and loops, a name of its own."""
    taken = set() if taken is None else taken
    for node in graph.node:
        base = name = node.name or next(filter(None, node.output), node.op_type)
        repeats = 1
        while name in taken:
            repeats += 1
            name = f"{base}#{repeats}"
        taken.add(name)
        node.name = name
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                _name_all(inner, taken)
