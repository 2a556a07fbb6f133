"""Bits per layer: the choice of least loss under a budget, among what the layers offer.

The budget is one of bytes, or one of time on a target; under time a layer may also stay in float.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgekd.numerics.knapsack import choose_options
from edgekd.quantize.offers import with_bits
from edgekd.quantize.rules import Rule

if TYPE_CHECKING:
    from edgekd.quantize.offers import Offer
    from edgekd.quantize.quantizers._contract import Quantizer

_NS_PER_US = 1000


@dataclass(frozen=True, slots=True)
class Option:
    """One width offered to one layer.

    Attributes:
        bits: None for float.
        size_bytes: Of the layer's weights with scales.
        loss_increase: Measured; 0 for float.
        slower_ns: Measured on the target, in comparison with the widest integers; None where
            nothing was timed.
    """

    bits: int | None
    size_bytes: int
    loss_increase: float
    slower_ns: int | None = None

    @property
    def title(self) -> str:
        """``4 bits`` or ``float``."""
        return "float" if self.bits is None else f"{self.bits} bits"


@dataclass(frozen=True, slots=True)
class LayerBits:
    """What one layer got.

    Attributes:
        layer: Dotted path in the graph.
        weights: Their count.
        bits: None for float.
        size_bytes: Of its weights with scales.
        options: Each offered width; none under a rule.
        why: In words.
    """

    layer: str
    weights: int
    bits: int | None
    size_bytes: int
    options: tuple[Option, ...]
    why: str

    @property
    def chosen(self) -> Option | None:
        """Of the options; None under a rule."""
        return next((o for o in self.options if o.bits == self.bits), None)


@dataclass(frozen=True, slots=True)
class Allocation:
    """Bits of every layer.

    Attributes:
        layers: In execution order.
        budget_bytes: What their sizes may add up to; None under a budget of time.
    """

    layers: tuple[LayerBits, ...]
    budget_bytes: int | None

    @property
    def size_bytes(self) -> int:
        """Of all weights with scales."""
        return sum(layer.size_bytes for layer in self.layers)

    @property
    def predicted_increase(self) -> float:
        """Sum of the layers' own increases of the loss: what they add up to if independent."""
        return sum(x.chosen.loss_increase for x in self.layers if x.chosen is not None)

    @property
    def slower_ns(self) -> int:
        """Sum of the layers' own times: a prediction, as if they did not touch each other."""
        return sum(x.chosen.slower_ns or 0 for x in self.layers if x.chosen is not None)

    def rules(self, quantizer: Quantizer) -> tuple[Rule, ...]:
        """The choice as rules of a recipe."""
        return tuple(rule(x.layer, quantizer, x.bits) for x in self.layers if x.options)


def rule(layer: str, quantizer: Quantizer, bits: int | None) -> Rule:
    """One layer at one width, or in float, as a rule of a recipe."""
    weights = "float" if bits is None else with_bits(quantizer, bits)
    return Rule(layers=f"re:^{re.escape(layer)}$", weights=weights)


def allocate(
    offered: Sequence[Offer], increases: Mapping[str, Mapping[int, float]], budget: int
) -> Allocation:
    """The bits whose increases add up to the least, within `budget` bytes.

    An increase below zero counts as zero: it is noise, or luck that adding up cannot promise.
    """
    options = _options(offered, increases, {})
    picked = _picked(options, [[o.size_bytes for o in item] for item in options], budget)
    assert picked is not None  # `budget_bytes` refuses less
    return Allocation(_layers(offered, options, picked), budget)


def allocate_time(
    offered: Sequence[Offer],
    increases: Mapping[str, Mapping[int, float]],
    slower_ns: Mapping[str, Mapping[int | None, int]],
    limit_ns: int,
) -> Allocation | None:
    """The same within a time; None where even the fastest takes longer.

    At least one layer gets integers, for a student all in float is not a quantized one.

    Args:
        offered: From `offers`.
        increases: From `loss_increases`; what is missing counts as none.
        slower_ns: Layer -> bits -> what it takes more than the widest integers; may be negative.
        limit_ns: What these may add up to.
    """
    options = _options(offered, increases, slower_ns)
    free = [i for i, offer in enumerate(offered) if not offer.rule]
    found = _within(options, limit_ns)
    if found is not None and all(
        item[x].bits is None for item, x in zip(options, found, strict=True)
    ):
        tried = [
            _within([[o for o in item if o.bits is not None] if i == kept else item
                     for i, item in enumerate(options)], limit_ns)
            for kept in free
        ]  # fmt: skip
        found = min(
            (picked for picked in tried if picked is not None),
            key=lambda picked: sum(
                item[x].loss_increase for item, x in zip(options, picked, strict=True)
            ),
            default=None,
        )
    return None if found is None else Allocation(_layers(offered, options, found), None)


def _within(options: Sequence[Sequence[Option]], limit_ns: int) -> list[int] | None:
    """Costs count from the fastest option of each layer, since a knapsack knows none below 0."""
    times = [[o.slower_ns or 0 for o in item] for item in options]
    least = [min(item) for item in times]
    costs = [[t - low for t in item] for item, low in zip(times, least, strict=True)]
    return _picked(options, costs, limit_ns - sum(least))


def _options(
    offered: Sequence[Offer],
    increases: Mapping[str, Mapping[int, float]],
    slower_ns: Mapping[str, Mapping[int | None, int]],
) -> list[list[Option]]:
    """Per layer; a layer that was timed has the options that were."""
    return [
        [
            Option(
                bits,
                size,
                0.0 if bits is None else increases.get(o.layer, {}).get(bits, 0.0),
                slower_ns.get(o.layer, {}).get(bits),
            )
            for bits, size in o.sizes.items()
            if o.layer not in slower_ns or bits in slower_ns[o.layer]
        ]
        for o in offered
    ]


def _picked(
    options: Sequence[Sequence[Option]], costs: Sequence[Sequence[int]], budget: int
) -> list[int] | None:
    return choose_options(
        [np.array(item, np.int64) for item in costs],
        [np.array([max(o.loss_increase, 0.0) for o in item]) for item in options],
        budget,
    )


def _layers(
    offered: Sequence[Offer], options: Sequence[Sequence[Option]], picked: Sequence[int]
) -> tuple[LayerBits, ...]:
    layers = []
    for offer, item, index in zip(offered, options, picked, strict=True):
        chosen = item[index]
        free = () if offer.rule else tuple(item)
        why = offer.rule or _why(free, index)
        layers.append(
            LayerBits(offer.layer, offer.weights, chosen.bits, chosen.size_bytes, free, why)
        )
    return tuple(layers)


def _why(options: Sequence[Option], index: int) -> str:
    chosen = options[index]
    others = [options[i] for i in (index - 1, index + 1) if 0 <= i < len(options)]
    return "; ".join(_beside(o, chosen) for o in others) or "the only width offered"


def _beside(other: Option, chosen: Option) -> str:
    """What another width would have changed."""
    size, loss = (
        other.size_bytes - chosen.size_bytes,
        other.loss_increase - chosen.loss_increase,
    )
    words = f"{other.title} would take {abs(size):,} B {'less' if size < 0 else 'more'}"
    if other.slower_ns is not None and chosen.slower_ns is not None:
        time_us = (other.slower_ns - chosen.slower_ns) / _NS_PER_US
        words += f", {abs(time_us):.1f} us {'less' if time_us < 0 else 'more'}" if time_us else (
            ", the same time"
        )  # fmt: skip
    return f"{words} and change the loss by {loss:+.4f}"
