"""Where the time of two models goes, layer by layer, and what to change: a pure function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgekd.profile.breakdown import breakdown, joined
from edgekd.profile.findings import findings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgekd.profile.breakdown import Breakdown, Explained, Pair
    from edgekd.profile.findings import Finding

#: counters always cost something; from this ratio on they say shares rather than times
_COUNTERS_COST = 1.25


@dataclass(frozen=True, slots=True)
class Explanation:
    """Two models side by side.

    Attributes:
        first: To compare with.
        second: The one in question.
        pairs: Nodes by their name in the file, the largest change first.
        findings: What costs time in the second, the longest first.
        notes: How far the figures can be trusted.
    """

    first: Breakdown
    second: Breakdown
    pairs: tuple[Pair, ...]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]


def explain(first: Explained, second: Explained) -> Explanation:
    """Say where the time of `second` goes in comparison with `first`.

    Args:
        first: Usually the float model.
        second: Usually the int8 model, the one that should be faster.
    """
    one, two = breakdown(first), breakdown(second)
    pairs = joined(first.layers, second.layers)
    return Explanation(one, two, pairs, findings(second, two, pairs), (*_notes(one), *_notes(two)))


def _notes(where: Breakdown) -> Iterator[str]:
    if where.untimed:
        yield f"{where.title}: nodes without a time: {where.untimed}"
    if where.layers_us > _COUNTERS_COST * where.latency_us:
        yield (
            f"{where.title}: the layers sum to {where.layers_us:.1f} us, above the "
            f"{where.latency_us:.1f} us measured without counters; take them as shares"
        )
