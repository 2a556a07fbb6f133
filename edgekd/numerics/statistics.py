"""Percentiles that hold: binomial upper bounds in place of bare sample percentiles.

The rule is the early-stopping estimate of MLPerf's LoadGen: of n sorted samples, report the one
that is exceeded by t others, where t is chosen so small that the true percentile lies at or below
it with the wanted confidence, whatever the distribution of the samples is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

CONFIDENCE = 0.99


def certified_percentile(
    samples: Sequence[float] | NDArray[np.generic],
    percentile: float,
    confidence: float = CONFIDENCE,
) -> float | None:
    """An upper bound of the true percentile that holds with probability `confidence`.

    With n samples, let t be the largest count for which
    ``BinomialCDF(t; n, 1 - percentile / 100) <= 1 - confidence``: seeing only t or fewer samples
    above the true percentile is that unlikely. The bound is the (n - t)-th smallest sample.

    Args:
        samples: Independent measurements in any order and unit, shape (n,).
        percentile: In percent, e.g. 90.
        confidence: Probability that the bound is not too low.

    Returns:
        The bound in the samples' unit; None where not even t = 1 is possible. At least one sample
        must lie above the bound, so that it never rests on the slowest sample alone.

    Source: MLPerf Inference rules, "early stopping"; `needed_samples` lists the smallest n.
    """
    n = len(samples)
    above = _allowed_above(n, percentile, confidence)
    if above < 1:
        return None
    return float(np.partition(np.asarray(samples), n - above - 1)[n - above - 1])


def empirical_percentile(
    samples: Sequence[float] | NDArray[np.generic], percentile: float
) -> float | None:
    """The ceil(n * percentile / 100)-th smallest sample: a real sample, never an interpolation.

    Returns:
        In the samples' unit; None below ``1 / (1 - percentile / 100)`` samples, where it would
        only be the largest of them.
    """
    n = len(samples)
    share = 1 - percentile / 100
    if n * share < 1 - 1e-9:  # 100 * (1 - 0.99) is just below 1 in floating point
        return None
    rank = int(np.ceil(n * percentile / 100 - 1e-9))
    return float(np.partition(np.asarray(samples), rank - 1)[rank - 1])


def needed_samples(percentile: float, confidence: float = CONFIDENCE) -> int:
    """Fewest samples for which `certified_percentile` gives a bound.

    At 99 % confidence: p50 11, p90 64, p95 130, p99 662.
    """
    low, high = 1, 2
    while _allowed_above(high, percentile, confidence) < 1:
        low, high = high, 2 * high
    while high - low > 1:  # the count allowed above never falls as n grows
        middle = (low + high) // 2
        if _allowed_above(middle, percentile, confidence) < 1:
            low = middle
        else:
            high = middle
    return high


def _allowed_above(n: int, percentile: float, confidence: float) -> int:
    """The largest t of the docstring above; -1 where not even t = 0 is unlikely enough."""
    from scipy.special import bdtr

    if not 0 < percentile < 100 or not 0 < confidence < 1:
        raise ValueError(f"percentile {percentile} or confidence {confidence} is out of range")
    counts = np.arange(int(np.ceil(n * (1 - percentile / 100))) + 1)
    unlikely = bdtr(counts, n, 1 - percentile / 100) <= 1 - confidence
    return int(unlikely.sum()) - 1  # the distribution function only rises, so a prefix is True
