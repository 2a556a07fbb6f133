"""Codebook points shared out between layers by how much the loss feels each layer's weights."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from edgekd.core.errors import DataError, RecipeError
from edgekd.quantize.convert import granularity_for
from edgekd.quantize.placement import describe
from edgekd.quantize.rules import Rule, choose

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, fx, nn

    from edgekd.core.types import Scheme
    from edgekd.quantize.settings import QuantizeSettings

_MOST, _FEWEST = 256, 2


@dataclass(frozen=True, slots=True)
class Pointed:
    """A layer whose quantizer can have any number of points.

    Attributes:
        layer: Dotted path in the graph.
        quantizer: As the recipe chose it; has `point_count` and `with_points`.
        granularity: Which of the layer's weights share a scale.
    """

    layer: str
    quantizer: Any
    granularity: Any

    def rule(self, count: int) -> Rule:
        """`count` points, as a rule of a recipe."""
        return Rule(
            layers=f"re:^{re.escape(self.layer)}$",
            weights=self.quantizer.with_points(count),
            granularity=self.granularity,
        )


def pointed_layers(
    graph: fx.GraphModule, settings: QuantizeSettings, scheme: Scheme
) -> tuple[Pointed, ...]:
    """The layers to share points between, in execution order.

    Raises:
        RecipeError: There is none, or a rule matches no layer.
    """
    layers = describe(graph)
    ruled = choose(layers, settings.placed_rules())
    found = []
    for path in (layer.path for layer in layers):
        choice = ruled.get(path)
        quantizer = settings.weights if choice is None else choice.quantizer
        chosen = None if choice is None else choice.granularity
        if hasattr(quantizer, "with_points"):
            shared = chosen or granularity_for(settings, scheme)
            found.append(Pointed(path, quantizer, shared))
    if not found:
        raise RecipeError(
            "quantize.redistribute_batches has no points to share out.",
            expected="a layer whose quantizer trains a codebook, such as differentiable",
            got=f"{len(layers)} layers with other quantizers",
            todo="take it out, or choose such a quantizer",
        )
    return tuple(found)


def gradient_norms(
    graph: nn.Module,
    paths: Sequence[str],
    batches: Iterable[tuple[Tensor, Tensor]],
    loss: Callable[[Tensor, Tensor], Tensor],
) -> dict[str, float]:
    """Path -> Euclidean norm of the mean gradient of that layer's weight, over the minibatches.

    Args:
        graph: Trained float network in eval mode; left as it is.
        paths: Of its layers.
        batches: Inputs and labels; at least one pair.
        loss: Of outputs and labels.

    Raises:
        DataError: A gradient is not finite.
    """
    weights: list[Any] = [graph.get_submodule(path).weight for path in paths]
    sums = [torch.zeros_like(weight) for weight in weights]
    count = 0
    for inputs, labels in batches:
        for total, grad in zip(
            sums, torch.autograd.grad(loss(graph(inputs), labels), weights), strict=True
        ):
            total += grad
        count += 1
    found = {
        path: float(torch.linalg.vector_norm(total / count))
        for path, total in zip(paths, sums, strict=True)
    }
    for path, norm in found.items():
        if norm != norm or norm == float("inf"):
            raise DataError(
                f"The gradient of the layer {path!r} is not finite.",
                expected="finite numbers",
                got=str(norm),
                todo="look at the student's weights and at the input scaling",
            )
    return found


def shared_points(norms: Mapping[str, float], points: Mapping[str, int]) -> dict[str, int]:
    """Points of each layer; their sum stays what it was.

    Every layer gets half of its points, the rest is shared in proportion to the norms. What
    rounding gave too much is taken from the layer with the most points, what is left over is
    given to the one with the fewest (Polino et al. 2018, published code; section 4.1 calls it
    redistributing bits, but what it moves is points, whatever the size of the layer). Here no
    layer has fewer than 2 or more than 256, the width of a byte.

    Args:
        norms: Gradient norm of each layer.
        points: What each would have in equal shares.

    >>> shared_points({"a": 3.0, "b": 1.0, "c": 0.0}, {"a": 4, "b": 4, "c": 4})
    {'a': 6, 'b': 4, 'c': 2}
    """
    total, all_norms = sum(points.values()), sum(norms.values())
    least = {layer: max(_FEWEST, count // 2) for layer, count in points.items()}
    rest = total - sum(least.values())
    if all_norms == 0 or rest <= 0:
        return dict(points)
    found = {
        layer: min(_MOST, least[layer] + round(rest * norms[layer] / all_norms))
        for layer in points
    }
    while sum(found.values()) > total:
        found[max((x for x in found if found[x] > least[x]), key=found.__getitem__)] -= 1
    while sum(found.values()) < total:
        found[min(found, key=found.__getitem__)] += 1
    return found
