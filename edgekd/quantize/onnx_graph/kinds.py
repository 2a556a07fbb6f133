"""What each operator means for quantization: one table, and what keeps a layer in float."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edgekd.backends._onnx.qdq import FLOAT_MATMULS
from edgekd.quantize.onnx_graph.graph import attribute, branches, nodes_within

if TYPE_CHECKING:
    from edgekd.quantize.onnx_graph.graph import Graph

Kind = Literal["weighted", "rectifier", "same_grid", "arithmetic", "other"]

_WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
#: their output holds values of their first input, so it lies on the same grid
_SAME_GRID = frozenset({
    "DepthToSpace", "Dropout", "Expand", "Flatten", "Gather", "Identity", "MaxPool", "Reshape",
    "Slice", "SpaceToDepth", "Split", "Squeeze", "Transpose", "Unsqueeze",
})  # fmt: skip
#: runtimes have integer kernels for them between grids
_ARITHMETIC = frozenset({
    "Add", "AveragePool", "Concat", "GlobalAveragePool", "LeakyRelu", "Mul", "Sigmoid",
})  # fmt: skip
_STANDARD = ("", "ai.onnx")


@dataclass(frozen=True, slots=True)
class WeightedLayer:
    """A convolution or matrix product whose weights are stored in the file.

    Attributes:
        node: Its node.
        weight: Name of its weights.
        axis: Of the weights, that counts output channels; None where no axis does alone.
        bias: Name of its bias; "" without.
        depthwise: A convolution with one input channel per group, several groups.
    """

    node: Any
    weight: str
    axis: int | None
    bias: str
    depthwise: bool


def kind(node: Any, graph: Graph) -> Kind:
    """What a node means for quantization."""
    if node.domain not in _STANDARD:
        return "other"
    op = node.op_type
    if op in _WEIGHTED:
        return "weighted"
    if op == "Relu" or (op == "Clip" and _is_rectifier(node, graph)):
        return "rectifier"
    if op in _SAME_GRID or (op == "Resize" and attribute(node, "mode", b"nearest") == b"nearest"):
        return "same_grid" if node.input[0] not in graph.constants else "other"
    return "arithmetic" if op in _ARITHMETIC else "other"


def clip_bounds(node: Any, graph: Graph) -> tuple[float, float]:
    """Bounds of a Clip; infinite where it has none or they are computed."""
    bounds = [-np.inf, np.inf]
    for index, name in enumerate(node.input[1:3]):
        value = graph.value(name) if name else None
        if value is not None:
            bounds[index] = float(value)
    return bounds[0], bounds[1]


def _is_rectifier(node: Any, graph: Graph) -> bool:
    """A Clip that the ends of its grid do: its bounds are stored, and zero is inside."""
    if any(name and name not in graph.constants for name in node.input[1:3]):
        return False
    low, high = clip_bounds(node, graph)
    return low <= 0 < high


def layers(graph: Graph) -> tuple[list[WeightedLayer], dict[str, str]]:
    """The layers that can become integers, and the reason of each one that cannot, by name.

    Both in execution order. Layers in branches and loops are named after the node around them.
    """
    found, skipped = [], {}
    for node in graph.nodes:
        if node.op_type in FLOAT_MATMULS:
            layer = _weighted(node, graph)
            if isinstance(layer, str):
                skipped[node.name] = layer
            else:
                found.append(layer)
        for inner in (n for branch in branches(node) for n in nodes_within(branch)):
            if inner.op_type in FLOAT_MATMULS:
                name = inner.name or next(filter(None, inner.output), inner.op_type)
                skipped[f"{node.name}/{name}"] = (
                    f"{inner.op_type} inside the {node.op_type} {node.name!r}"
                )
    return found, skipped


def _weighted(node: Any, graph: Graph) -> WeightedLayer | str:
    """The layer, or why it cannot become integers."""
    op = node.op_type
    if node.domain not in _STANDARD or op not in _WEIGHTED:
        return f"{op} has no integer form here"
    weight, bias = node.input[1], node.input[2] if len(node.input) > 2 else ""
    if op == "MatMul" and weight not in graph.constants:
        stored = node.input[0] in graph.constants
        return "its stored factor comes first" if stored else "both of its factors are computed"
    for what, name in (("weights", weight), ("bias", bias)):
        if name and name not in graph.constants:
            return f"its {what} {'are' if what == 'weights' else 'is'} computed"
    value = graph.value(weight)
    assert value is not None
    if value.dtype != np.float32:
        return f"its weights are {value.dtype.name}"
    if op == "Gemm" and (attribute(node, "transA", 0) or _scaled(node)):
        return "a Gemm with transA, alpha or beta"
    added = graph.value(bias) if bias else None
    if op == "Gemm" and added is not None and added.size != _columns(node, value.shape):
        return "a Gemm whose addend is no bias"
    if op == "MatMul" and value.ndim != 2:
        return f"its weights have {value.ndim} axes"
    groups = attribute(node, "group", 1)
    depthwise = op == "Conv" and groups > 1 and value.shape[1] == 1
    return WeightedLayer(node, weight, _axis(node, groups), bias, depthwise)


def _scaled(node: Any) -> bool:
    beta = attribute(node, "beta", 1.0) if len(node.input) > 2 else 1.0
    return bool(attribute(node, "alpha", 1.0) != 1.0 or beta != 1.0)


def _columns(node: Any, shape: tuple[int, ...]) -> int:
    return shape[0] if attribute(node, "transB", 0) else shape[1]


def _axis(node: Any, groups: int) -> int | None:
    match node.op_type:
        case "Conv":
            return 0
        case "Gemm":
            return 0 if attribute(node, "transB", 0) else 1
        case "MatMul":
            return 1
    return 1 if groups == 1 else None
