"""Rewrites a float graph so that layers and weights can be seen: nothing here changes a result.

Constants become initializers, layout changes of constants are carried out, BatchNormalization
goes into the convolution before it, and every node gets a name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgekd.quantize.onnx_graph.graph import Graph, attribute

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: carried out where all their inputs are constants
_FOLDED = frozenset({
    "Cast", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze",
})  # fmt: skip
_EPSILON = 1e-5


def tidy(model: Any) -> list[str]:
    """Rewrite `model` in place.

    Returns:
        Names of the convolutions that a BatchNormalization was folded into.
    """
    graph = model.graph
    initializers = {i.name for i in graph.initializer}
    fed = [i for i in graph.input if i.name not in initializers]
    del graph.input[:]
    graph.input.extend(fed)
    _constants(graph)
    _sums(graph)
    _name_all(graph)
    folded = _fold_batch_norms(model)
    _drop_unread(graph)
    del graph.value_info[:]  # runtimes infer the shapes again
    return folded


def _constants(graph: Any) -> None:
    """Constant nodes and layout changes of constants become initializers."""
    from onnx import numpy_helper

    outputs = {o.name for o in graph.output}
    values: dict[str, Any] = {i.name: i for i in graph.initializer}
    kept = []
    for node in graph.node:
        value = _constant(node, values)
        if value is None or set(node.output) & outputs:
            kept.append(node)
            continue
        made = numpy_helper.from_array(value, node.output[0])
        values[made.name] = made
        graph.initializer.append(made)
    del graph.node[:]
    graph.node.extend(kept)


def _constant(node: Any, values: dict[str, Any]) -> NDArray[np.generic] | None:
    """The value of a node that depends on constants alone; None for others."""
    from onnx import numpy_helper
    from onnx.reference import ReferenceEvaluator

    if node.op_type == "Constant" and node.domain == "":
        given = node.attribute[0]
        if given.name == "value":
            return np.asarray(numpy_helper.to_array(given.t))
        if given.name in ("value_float", "value_floats"):
            return np.asarray(attribute(node, given.name), np.float32)
        if given.name in ("value_int", "value_ints"):
            return np.asarray(attribute(node, given.name), np.int64)
        return None
    if node.op_type not in _FOLDED or not all(name in values for name in node.input):
        return None
    feeds = {name: numpy_helper.to_array(values[name]) for name in node.input}
    return np.asarray(ReferenceEvaluator(node).run(None, feeds)[0])


def _sums(graph: Any) -> None:
    """A Sum of two has integer kernels as an Add only."""
    for node in graph.node:
        if node.op_type == "Sum" and len(node.input) == 2:
            node.op_type = "Add"


def _name_all(graph: Any) -> None:
    """Every node of the main graph gets a name of its own: its output's where it has none."""
    taken: set[str] = set()
    for node in graph.node:
        base = name = node.name or next(filter(None, node.output), node.op_type)
        repeats = 1
        while name in taken:
            repeats += 1
            name = f"{base}#{repeats}"
        taken.add(name)
        node.name = name


def _fold_batch_norms(model: Any) -> list[str]:
    """``BN(conv(x))`` becomes one convolution (Jacob et al. 2018, arXiv 1712.05877, eq. 14)."""
    graph = Graph(model)
    folded = []
    for norm in list(model.graph.node):
        conv = graph.makers.get(norm.input[0]) if norm.op_type == "BatchNormalization" else None
        if conv is None or conv.op_type != "Conv" or graph.only_user(conv.output[0]) is not norm:
            continue
        if _fold(model.graph, graph, conv, norm):
            model.graph.node.remove(norm)
            folded.append(str(conv.name))
    return folded


def _fold(proto: Any, graph: Graph, conv: Any, norm: Any) -> bool:
    """Fold one; False where something is not a float32 constant or the norm is in training."""
    from onnx import numpy_helper

    names = [conv.input[1], *norm.input[1:], *conv.input[2:3]]
    found = [graph.value(name) for name in names if name]
    arrays = [value for value in found if value is not None and value.dtype == np.float32]
    one_output = not any(norm.output[1:])
    if len(arrays) < len(found) or attribute(norm, "training_mode", 0) or not one_output:
        return False
    weight, gamma, beta, mean, variance, *bias = (a.astype(np.float64) for a in arrays)
    # in float64 and rounded once, so that it differs from the two steps by rounding alone
    factor = gamma / np.sqrt(variance + attribute(norm, "epsilon", _EPSILON))
    shift = beta + ((bias[0] if bias else 0.0) - mean) * factor
    scaled = weight * factor.reshape(-1, *[1] * (weight.ndim - 1))
    made = {f"{conv.name}.folded_weight": scaled, f"{conv.name}.folded_bias": shift}
    for name, value in made.items():
        proto.initializer.append(numpy_helper.from_array(value.astype(np.float32), name))
    conv.input[:] = [conv.input[0], *made]
    conv.output[0] = norm.output[0]
    return True


def _drop_unread(graph: Any) -> None:
    from edgekd.quantize.onnx_graph.graph import nodes_within

    read = {name for node in nodes_within(graph) for name in node.input}
    read |= {o.name for o in graph.output}
    kept = [i for i in graph.initializer if i.name in read]
    if len(kept) < len(graph.initializer):
        del graph.initializer[:]
        graph.initializer.extend(kept)
