"""Bits per layer: what every width would take, and the choice of least loss under a budget."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from edgekd.core.errors import RecipeError
from edgekd.numerics.encoding import round_trip, stored_bytes
from edgekd.numerics.knapsack import choose_options
from edgekd.quantize.convert import granularity_for
from edgekd.quantize.placement import describe
from edgekd.quantize.quantizers._contract import QUANTIZERS
from edgekd.quantize.rules import Rule, choose

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import fx, nn

    from edgekd.core.types import Scheme
    from edgekd.quantize.quantizers._contract import Quantizer
    from edgekd.quantize.settings import QuantizeSettings

_FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True)
class Offer:
    """What one layer can be stored as.

    Attributes:
        layer: Dotted path in the graph.
        weights: Their count.
        sizes: Bits -> bytes with scales; a single entry where a rule has chosen, under the key
            None for float.
        rule: The rule's reason; empty where the bits are free.
    """

    layer: str
    weights: int
    sizes: Mapping[int | None, int]
    rule: str = ""


@dataclass(frozen=True, slots=True)
class LayerBits:
    """What one layer got.

    Attributes:
        layer: Dotted path in the graph.
        weights: Their count.
        bits: None for float.
        size_bytes: Of its weights with scales.
        options: (bits, bytes, measured increase of the loss) of each offered width.
        why: In words.
    """

    layer: str
    weights: int
    bits: int | None
    size_bytes: int
    options: tuple[tuple[int, int, float], ...]
    why: str


@dataclass(frozen=True, slots=True)
class Allocation:
    """Bits of every layer.

    Attributes:
        layers: In execution order.
        budget_bytes: What their sizes may add up to.
    """

    layers: tuple[LayerBits, ...]
    budget_bytes: int

    @property
    def size_bytes(self) -> int:
        """Of all weights with scales."""
        return sum(layer.size_bytes for layer in self.layers)

    @property
    def predicted_increase(self) -> float:
        """Sum of the layers' own increases of the loss: what they add up to if independent."""
        return sum(i for x in self.layers for bits, _, i in x.options if bits == x.bits)

    def rules(self, quantizer: Quantizer) -> tuple[Rule, ...]:
        """The choice as rules of a recipe."""
        return tuple(
            Rule(layers=f"re:^{re.escape(x.layer)}$", weights=with_bits(quantizer, x.bits))
            for x in self.layers
            if x.bits is not None and x.options
        )


def with_bits(quantizer: Quantizer, bits: int) -> Quantizer:
    """The same quantizer at another width.

    Raises:
        RecipeError: It has no such width.
    """
    return QUANTIZERS.build({**QUANTIZERS.spec_of(quantizer), "bits": bits})


def offers(graph: fx.GraphModule, settings: QuantizeSettings, scheme: Scheme) -> tuple[Offer, ...]:
    """What each layer can be stored as, in execution order.

    Args:
        graph: Traced, batch norm folded.
        settings: With `mixed`.
        scheme: Of the targets it is for.
    """
    assert settings.mixed is not None  # the caller looked
    layers = describe(graph)
    ruled = choose(layers, settings.placed_rules())
    found = []
    for path in (layer.path for layer in layers):
        weight = _weight(graph, path)
        granularity, choice = granularity_for(settings, scheme), ruled.get(path)
        if choice is None:
            quantizers = [with_bits(settings.weights, bits) for bits in settings.mixed.bits]
        elif choice.quantizer is None:
            found.append(
                Offer(path, weight.size, {None: _FLOAT_BYTES * weight.size}, choice.reason)
            )
            continue
        else:
            quantizers, granularity = [choice.quantizer], choice.granularity or granularity
        sizes: dict[int | None, int] = {
            q.bits: stored_bytes(weight.size, q.encode(weight, granularity)) for q in quantizers
        }
        found.append(Offer(path, weight.size, sizes, choice.reason if choice else ""))
    return tuple(found)


def budget_bytes(offered: Sequence[Offer], settings: QuantizeSettings) -> int:
    """The recipe's budget in bytes.

    Raises:
        RecipeError: The layers cannot be stored in it, or rules leave nothing to choose.
    """
    mixed = settings.mixed
    assert mixed is not None  # the caller looked
    if all(o.rule for o in offered):
        raise RecipeError(
            "quantize.mixed has no layer to choose bits for.",
            expected="a layer that no rule names",
            got=f"{len(offered)} layers, all under rules",
            todo="take out quantize.mixed, or some of the rules",
        )
    weights = sum(o.weights for o in offered)
    if mixed.bits_per_weight is not None:
        budget, text = int(mixed.bits_per_weight * weights / 8), "bits_per_weight"
    else:
        assert mixed.budget is not None  # one of the two is given
        budget, text = mixed.budget, "budget"
    least = sum(min(o.sizes.values()) for o in offered)
    if least > budget:
        raise RecipeError(
            f"quantize.mixed.{text}: the weights do not fit into {budget} bytes.",
            expected=f"at least {least} bytes ({8 * least / weights:.2f} bits per weight), "
            "which every layer at its fewest bits takes, scales counted",
            got=f"{budget} bytes for {weights} weights",
            todo="raise it, offer fewer bits, or let more weights share a scale",
        )
    return budget


def loss_increases(
    graph: fx.GraphModule,
    offered: Sequence[Offer],
    settings: QuantizeSettings,
    scheme: Scheme,
    loss: Callable[[nn.Module], float],
) -> Iterator[tuple[str, dict[int, float]]]:
    """For each free layer, by how much each width alone raises the loss: measured, no proxy.

    Args:
        graph: Trained float graph; as before when the iterator is done.
        offered: From `offers`; layers under rules are left out.
        settings: The quantizer and its granularity.
        scheme: Of the targets it is for.
        loss: Of a network on samples that no choice is later judged by.
    """
    base = loss(graph)
    granularity = granularity_for(settings, scheme)
    for offer in offered:
        if offer.rule:
            continue
        weight = _weight(graph, offer.layer)
        found = {}
        for bits in offer.sizes:
            assert bits is not None  # a free layer has no float option
            encoding = with_bits(settings.weights, bits).encode(weight, granularity)
            _put(graph, offer.layer, round_trip(weight, encoding))
            found[bits] = loss(graph) - base
        _put(graph, offer.layer, weight)
        yield offer.layer, found


def allocate(
    offered: Sequence[Offer], increases: Mapping[str, Mapping[int, float]], budget: int
) -> Allocation:
    """The bits whose increases add up to the least, within `budget` bytes.

    An increase below zero counts as zero: it is noise, or luck that adding up cannot promise.
    """
    options = [
        [
            (bits, size, increases.get(o.layer, {}).get(bits or 0, 0.0))
            for bits, size in o.sizes.items()
        ]
        for o in offered
    ]
    picked = choose_options(
        [np.array([size for _, size, _ in item], np.int64) for item in options],
        [np.array([max(loss, 0.0) for _, _, loss in item]) for item in options],
        budget,
    )
    assert picked is not None  # `budget_bytes` refuses less
    layers = []
    for offer, item, index in zip(offered, options, picked, strict=True):
        bits, size, _ = item[index]
        free = () if offer.rule else tuple((b, s, i) for b, s, i in item if b is not None)
        why = offer.rule or _why(free, index)
        layers.append(LayerBits(offer.layer, offer.weights, bits, size, free, why))
    return Allocation(tuple(layers), budget)


def _why(options: tuple[tuple[int, int, float], ...], index: int) -> str:
    _, size, loss = options[index]
    others = [options[i] for i in (index - 1, index + 1) if 0 <= i < len(options)]
    words = [
        f"{bits} bits would take {abs(other - size):,} B {'less' if other < size else 'more'} and "
        f"change the loss by {increase - loss:+.4f}"
        for bits, other, increase in others
    ]
    return "; ".join(words) or "the only width offered"


def _weight(graph: fx.GraphModule, path: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    layer: Any = graph.get_submodule(path)
    found: np.ndarray[Any, np.dtype[np.float32]] = layer.weight.detach().numpy().copy()
    return found


def _put(graph: fx.GraphModule, path: str, weight: np.ndarray[Any, np.dtype[np.float32]]) -> None:
    layer: Any = graph.get_submodule(path)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
