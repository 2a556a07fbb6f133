"""From a trained module to a float graph as a runtime sees it: traced, batch-norm folded."""

from __future__ import annotations

import copy
from collections import Counter

import torch
from torch import fx, nn

from edgekd.core.errors import UnsupportedError

_FOLDABLE = (nn.Conv1d, nn.Conv2d, nn.Linear)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def trace(module: nn.Module) -> fx.GraphModule:
    """The module as a graph of its layers, in eval mode; the module itself is left alone.

    Raises:
        UnsupportedError: Its forward depends on the values of tensors.
    """
    try:
        return fx.symbolic_trace(copy.deepcopy(module).eval())
    except Exception as e:
        raise UnsupportedError(
            f"The student {type(module).__name__} cannot be traced.",
            expected="a forward without control flow on tensor values or shapes",
            got=f"{type(e).__name__}: {str(e).splitlines()[0] if str(e) else ''}",
            todo="use layers instead of Python branches, or another student family",
        ) from e


def fold_batch_norms(graph: fx.GraphModule) -> fx.GraphModule:
    """Fold every batch-norm behind a convolution or linear layer into its weights, in place.

    ``w' = w · γ / sqrt(σ² + ε)``, ``b' = (b - μ) · γ / sqrt(σ² + ε) + β``: what runtimes compute
    when they load the file, done here so that quantization sees the weights that will be stored.
    A layer that is called more than once keeps its weights, for other calls need them as they are.
    """
    layers = dict(graph.named_modules())
    calls = Counter(node.target for node in graph.graph.nodes if node.op == "call_module")
    for node in list(graph.graph.nodes):
        if node.op != "call_module" or not isinstance(layers[node.target], _BATCH_NORMS):
            continue
        source = node.args[0]
        if source.op != "call_module" or len(source.users) != 1 or calls[source.target] != 1:
            continue
        layer, norm = layers[source.target], layers[node.target]
        if isinstance(layer, _FOLDABLE) and norm.track_running_stats:
            _fold(layer, norm)
            node.replace_all_uses_with(source)
            graph.graph.erase_node(node)
    for node in list(graph.graph.nodes):
        if node.op == "call_module" and isinstance(layers[node.target], nn.Identity | nn.Dropout):
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)
    graph.delete_all_unused_submodules()
    graph.recompile()
    return graph


def _fold(layer: nn.Module, norm: nn.Module) -> None:
    assert isinstance(layer, _FOLDABLE)
    assert isinstance(norm, _BATCH_NORMS)
    assert norm.running_var is not None
    assert norm.running_mean is not None
    with torch.no_grad():
        gain = torch.rsqrt(norm.running_var + norm.eps)
        if norm.weight is not None:
            gain = gain * norm.weight
        shift = -norm.running_mean * gain
        if norm.bias is not None:
            shift = shift + norm.bias
        if layer.bias is not None:
            shift = shift + layer.bias * gain
        layer.weight.mul_(gain.view(-1, *[1] * (layer.weight.ndim - 1)))
        layer.bias = nn.Parameter(shift.clone())
