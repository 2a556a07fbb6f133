"""Percentiles and spread of a profile; always computed from the raw samples, never stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgekd.numerics.statistics import (
    certified_percentile,
    empirical_percentile,
    needed_samples,
)

if TYPE_CHECKING:
    from edgekd.core.types import Profile

_NS_PER_MS = 1e6
#: a coefficient of variation above it is a machine that did something else as well
QUIET = 0.25
_UNMEASURED = "no clock has measured these samples"


@dataclass(frozen=True, slots=True)
class Percentile:
    """One percentile, in milliseconds.

    Attributes:
        certified: At or above the true percentile with 99 % confidence; None when refused.
        empirical: The plain sample percentile; None where n cannot support it.
        n: Samples it was computed from.
        reason: Why the certified one is refused; None when it is not.
    """

    certified: float | None
    empirical: float | None
    n: int
    reason: str | None


@dataclass(frozen=True, slots=True)
class Percentiles:
    """The four percentiles that budgets are made of."""

    p50: Percentile
    p90: Percentile
    p95: Percentile
    p99: Percentile


def percentiles(profile: Profile) -> Percentiles:
    """All four of a profile; nothing is certified of samples that were not measured."""
    samples = np.asarray(profile.samples_ns, np.int64)
    measured = profile.source == "measured"
    return Percentiles(
        **{f"p{p}": _percentile(samples, p, measured=measured) for p in (50, 90, 95, 99)}
    )


def coefficient_of_variation(profile: Profile) -> float:
    """Standard deviation over mean of all samples; see `QUIET`."""
    samples = np.asarray(profile.samples_ns, np.float64)
    return float(samples.std() / samples.mean())


def _percentile(
    samples: np.ndarray[tuple[int], np.dtype[np.int64]], percentile: int, *, measured: bool
) -> Percentile:
    certified = certified_percentile(samples, percentile) if measured else None
    empirical = empirical_percentile(samples, percentile)
    return Percentile(
        certified=None if certified is None else certified / _NS_PER_MS,
        empirical=None if empirical is None else empirical / _NS_PER_MS,
        n=len(samples),
        reason=None if certified is not None else _reason(percentile, measured),
    )


def _reason(percentile: int, measured: bool) -> str:
    return f"needs {needed_samples(percentile)} samples" if measured else _UNMEASURED
