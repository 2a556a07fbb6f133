"""Mixed precision under a latency: the choice of least loss that keeps it, measured as a whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgekd.core.errors import BudgetError
from edgekd.quantize.mixed import Allocation, allocate_time
from edgekd.quantize.offers import refuse_nothing_free
from edgekd.steps.layer_times import LayerTimes, layer_times, offered_layers, whole_ms

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgekd.core.types import Scheme
    from edgekd.quantize.offers import Offer
    from edgekd.steps.job import Job

_NS_PER_US, _NS_PER_MS = 1e3, 1e6
#: allocations that are tried on the target before the fastest one is taken
_TRIES = 4


@dataclass(frozen=True, slots=True)
class Paced:
    """An allocation under a latency.

    Attributes:
        allocation: Bits of each layer.
        times: That it was chosen by.
        predicted_us: The widest integers' time and the layers' differences, added up.
        measured_ms: Target -> median of a student with these bits, certified.
        tries: Allocations measured as a whole until one kept the budget.
    """

    allocation: Allocation
    times: LayerTimes
    predicted_us: float
    measured_ms: Mapping[str, float]
    tries: int


def check_latency(job: Job) -> None:
    """Refuse a latency that no choice of bits keeps, before anything is trained.

    Raises:
        BudgetError: The fastest choice, measured, takes longer.
        RecipeError: Rules leave nothing to choose.
    """
    mixed = job.recipe.quantize.mixed
    if mixed is None or mixed.latency is None:
        return
    for scheme in {t.scheme.training_key: t.scheme for t in job.targets if t.scheme}.values():
        offered = offered_layers(job, scheme)
        refuse_nothing_free(offered)
        fastest = _fastest(offered, {}, layer_times(job, scheme))
        for target, measured_ms in whole_ms(job, scheme, fastest).items():
            if measured_ms > mixed.latency:
                raise _too_slow(target, measured_ms, mixed.latency, fastest)


def paced(job: Job, scheme: Scheme, increases: Mapping[str, Mapping[int, float]]) -> Paced:
    """The bits of least loss whose whole student, measured, keeps the latency.

    Times of layers add up only roughly. So the choice is built and timed as a whole; where it
    takes longer than the budget, the next choice gets by as much less, and after a few the
    fastest is taken, which `check_latency` has measured.
    """
    mixed = job.recipe.quantize.mixed
    assert mixed is not None  # the caller looked
    assert mixed.latency is not None
    offered, times = offered_layers(job, scheme), layer_times(job, scheme)
    limit_ns = round(mixed.latency * _NS_PER_MS - times.whole_us * _NS_PER_US)
    for tried in range(1, _TRIES + 1):
        found = allocate_time(offered, increases, times.slower_ns, limit_ns)
        if found is None:
            break
        measured = whole_ms(job, scheme, found)
        excess_ns = round((max(measured.values()) - mixed.latency) * _NS_PER_MS)
        if excess_ns <= 0:
            return Paced(found, times, _predicted_us(times, found), measured, tried)
        limit_ns = min(limit_ns, found.slower_ns) - max(excess_ns, 1)
    else:
        tried += 1
    fastest = _fastest(offered, increases, times)
    measured = whole_ms(job, scheme, fastest)
    return Paced(fastest, times, _predicted_us(times, fastest), measured, tried)


def _predicted_us(times: LayerTimes, found: Allocation) -> float:
    return times.whole_us + found.slower_ns / _NS_PER_US


def _fastest(
    offered: Sequence[Offer], increases: Mapping[str, Mapping[int, float]], times: LayerTimes
) -> Allocation:
    least = {layer: min(of.values()) for layer, of in times.slower_ns.items()}
    limit_ns = sum(least.values())
    found = allocate_time(offered, increases, times.slower_ns, limit_ns)
    if found is None:  # float everywhere is the fastest, and no quantized student
        limit_ns += min(
            min(ns for bits, ns in of.items() if bits is not None) - least[layer]
            for layer, of in times.slower_ns.items()
        )
        found = allocate_time(offered, increases, times.slower_ns, limit_ns)
    assert found is not None  # the limit is what some choice takes
    return found


def _too_slow(
    target: str, measured_ms: float, budget_ms: float, fastest: Allocation
) -> BudgetError:
    chosen = ", ".join(
        f"{x.layer} {x.chosen.title}" for x in fastest.layers if x.chosen is not None
    )
    return BudgetError(
        f"quantize.mixed.latency: no choice of bits keeps {budget_ms:g} ms on {target}.",
        expected=f"at least {measured_ms:.3g} ms, the certified median of the fastest choice,"
        " measured on an untrained student",
        got=f"{budget_ms:g} ms; the fastest choice: {chosen}",
        todo="raise it, take a smaller student, or another target",
    )
