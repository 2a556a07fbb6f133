"""Which tensors of a graph are stored as integers: one pass over the nodes, one table of kinds."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import fx, nn

from edgekd.core.errors import UnsupportedError
from edgekd.quantize.rules import Choice, Layer, PlacedRule, choose

WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Linear)
#: layers with weights that no exporter of ours writes as integers
_FLOAT_ONLY = (
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.Conv3d,
    nn.Embedding,
    nn.LayerNorm,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.GroupNorm,
    nn.RNNBase,
    nn.MultiheadAttention,
)

Kind = Literal["weighted", "rectifier", "same_grid", "compute", "input", "output"]

_MODULES: dict[Kind, tuple[type[nn.Module], ...]] = {
    "weighted": WEIGHTED,
    # fused into the integer kernel before it: the tensor before them is never stored
    "rectifier": (nn.ReLU, nn.ReLU6),
    # their output holds values of their input, so it lies on the same grid
    "same_grid": (nn.MaxPool1d, nn.MaxPool2d, nn.Flatten),
}
_FUNCTIONS: dict[Kind, tuple[Any, ...]] = {
    "rectifier": (F.relu, F.relu6, torch.relu, "relu", "relu_"),
    "same_grid": (
        *(F.max_pool1d, F.max_pool2d, torch.flatten, torch.reshape),
        *("flatten", "reshape", "view", "permute", "transpose", "squeeze", "unsqueeze"),
        *("contiguous", torch.permute, torch.transpose, torch.squeeze, torch.unsqueeze),
    ),
}
_ADDITIONS = (operator.add, operator.iadd, torch.add, "add", "add_")


@dataclass(frozen=True, slots=True)
class Placement:
    """Where integers go.

    Attributes:
        weights: Dotted paths of the layers whose weights become integers, in execution order.
        quantized: Nodes whose output is put on a grid of its own.
        shared: Node -> the node whose grid its output already lies on.
        skipped: Weighted layer left in float -> reason.
        chosen: Layer -> what a rule chose for it; the others have the recipe's quantizer.
    """

    weights: tuple[str, ...]
    quantized: tuple[str, ...]
    shared: Mapping[str, str]
    skipped: Mapping[str, str]
    chosen: Mapping[str, Choice]


def place(
    graph: fx.GraphModule, *, rules: Sequence[PlacedRule] = (), activations: bool = True
) -> Placement:
    """Decide which layers and tensors become integers.

    Args:
        graph: Traced, batch norm folded.
        rules: In order.
        activations: False leaves the tensors between layers in float.

    Raises:
        RecipeError: A rule matches no layer.
        UnsupportedError: Nothing can be quantized.
    """
    layers = dict(graph.named_modules())
    kinds = {node: _kind(node, layers) for node in graph.graph.nodes}
    described = describe(graph)
    choices = choose(described, rules)
    skipped = _skipped(graph, layers, choices)
    if activations:
        skipped |= repeated(described)
    called = (str(node.target) for node in graph.graph.nodes if kinds[node] == "weighted")
    weights = tuple(path for path in dict.fromkeys(called) if path not in skipped)
    if not weights:
        raise UnsupportedError(
            "No layer of the student can be quantized.",
            expected="at least one convolution or linear layer",
            got="; ".join(f"{k}: {v}" for k, v in skipped.items()) or "none found",
        )
    wanted = _wanted(graph, kinds, weights) if activations else set()
    quantized, shared = [], {}
    for node in graph.graph.nodes:
        if node not in wanted or _absorbed(node, kinds):
            continue
        source = _grid_of(node, kinds)
        if source is node:
            quantized.append(node.name)
        elif source in wanted:
            shared[node.name] = source.name
    chosen = {path: choices[path] for path in weights if path in choices}
    return Placement(weights, tuple(quantized), shared, skipped, chosen)


def describe(graph: fx.GraphModule) -> list[Layer]:
    """The layers that can become integers, in execution order, each once."""
    layers = dict(graph.named_modules())
    used = Counter(str(n.target) for n in graph.graph.nodes if n.op == "call_module")
    return [
        Layer(path, depthwise=_is_depthwise(layers[path]), calls=calls)
        for path, calls in used.items()
        if isinstance(layers[path], WEIGHTED)
    ]


def repeated(layers: Sequence[Layer]) -> dict[str, str]:
    """Layers that no single int32 bias would serve -> reason; where inputs are integers."""
    return {
        layer.path: f"called {layer.calls} times, and an integer layer has one input scale"
        for layer in layers
        if layer.calls > 1
    }


def _is_depthwise(layer: nn.Module) -> bool:
    if not isinstance(layer, nn.Conv1d | nn.Conv2d):
        return False
    return 1 < layer.groups == layer.in_channels


def _kind(node: fx.Node, layers: dict[str, nn.Module]) -> Kind:
    if node.op in ("placeholder", "get_attr"):
        return "input"
    if node.op == "output":
        return "output"
    for kind, types in _MODULES.items():
        if node.op == "call_module" and isinstance(layers[str(node.target)], types):
            return kind
    for kind, targets in _FUNCTIONS.items():
        if node.op in ("call_function", "call_method") and node.target in targets:
            return kind
    return "compute"


def _skipped(
    graph: fx.GraphModule, layers: dict[str, nn.Module], choices: Mapping[str, Choice]
) -> dict[str, str]:
    used = [str(n.target) for n in graph.graph.nodes if n.op == "call_module"]
    skipped = {
        path: f"{type(layers[path]).__name__} has no integer form here"
        for path in used
        if isinstance(layers[path], _FLOAT_ONLY)
    }
    floats = {path: c.reason for path, c in choices.items() if c.quantizer is None}
    return skipped | {path: floats[path] for path in used if path in floats}


def _wanted(
    graph: fx.GraphModule, kinds: dict[fx.Node, Kind], weights: tuple[str, ...]
) -> set[fx.Node]:
    """Nodes whose output somebody reads as integers, found from the outputs backwards."""
    wanted: set[fx.Node] = set()
    for node in reversed(graph.graph.nodes):
        if kinds[node] == "output":
            continue
        for user in node.users:
            passes_on = kinds[user] in ("same_grid", "rectifier") and user.args[0] is node
            passes_on = passes_on and user in wanted
            integer_layer = kinds[user] == "weighted" and str(user.target) in weights
            if passes_on or integer_layer or (kinds[user] == "compute" and user in wanted):
                wanted.add(node)
    return wanted


def _absorbed(node: fx.Node, kinds: dict[fx.Node, Kind]) -> bool:
    """A rectifier right behind takes the whole output: the tensor itself is never stored."""
    if kinds[node] == "weighted" or node.target in _ADDITIONS:
        return len(node.users) == 1 and kinds[next(iter(node.users))] == "rectifier"
    return False


def _grid_of(node: fx.Node, kinds: dict[fx.Node, Kind]) -> fx.Node:
    """The node whose grid this output lies on: itself, unless it only moves values around."""
    while kinds[node] == "same_grid":
        source = node.args[0]
        assert isinstance(source, fx.Node)
        node = source
    return node
