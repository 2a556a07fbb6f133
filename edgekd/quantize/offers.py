"""What each layer can be stored as, and what every width costs it in bytes and in loss."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from edgekd.core.errors import RecipeError
from edgekd.numerics.encoding import round_trip, stored_bytes
from edgekd.quantize.convert import granularity_for
from edgekd.quantize.placement import describe, repeated
from edgekd.quantize.quantizers._contract import QUANTIZERS
from edgekd.quantize.rules import Choice, choose

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
        sizes: Bits -> bytes with scales, None for float; a single entry where a rule has chosen.
        rule: The rule's reason; empty where the bits are free.
    """

    layer: str
    weights: int
    sizes: Mapping[int | None, int]
    rule: str = ""


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
    if settings.activation_bits != "float":
        ruled |= {path: Choice(None, reason) for path, reason in repeated(layers).items()}
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
        if choice is None and settings.mixed.latency is not None:
            sizes[None] = _FLOAT_BYTES * weight.size
        found.append(Offer(path, weight.size, sizes, choice.reason if choice else ""))
    return tuple(found)


def refuse_nothing_free(offered: Sequence[Offer]) -> None:
    """Raise where rules leave nothing to choose.

    Raises:
        RecipeError: They do.
    """
    if all(o.rule for o in offered):
        raise RecipeError(
            "quantize.mixed has no layer to choose bits for.",
            expected="a layer that no rule names",
            got=f"{len(offered)} layers, all under rules",
            todo="take out quantize.mixed, or some of the rules",
        )


def budget_bytes(offered: Sequence[Offer], settings: QuantizeSettings) -> int:
    """The recipe's budget in bytes, where it is one of bytes.

    Raises:
        RecipeError: The layers cannot be stored in it, or rules leave nothing to choose.
    """
    mixed = settings.mixed
    assert mixed is not None  # the caller looked
    refuse_nothing_free(offered)
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
            if bits is None:
                continue
            encoding = with_bits(settings.weights, bits).encode(weight, granularity)
            _put(graph, offer.layer, round_trip(weight, encoding))
            found[bits] = loss(graph) - base
        _put(graph, offer.layer, weight)
        yield offer.layer, found


def _weight(graph: fx.GraphModule, path: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    layer: Any = graph.get_submodule(path)
    found: np.ndarray[Any, np.dtype[np.float32]] = layer.weight.detach().numpy().copy()
    return found


def _put(graph: fx.GraphModule, path: str, weight: np.ndarray[Any, np.dtype[np.float32]]) -> None:
    layer: Any = graph.get_submodule(path)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
