from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekd.numerics.statistics import (
    certified_percentile,
    empirical_percentile,
    needed_samples,
)

# MLPerf LoadGen's early stopping at 99 % confidence; p99.9 from its documentation
GOLDEN_NEEDED = {50: 11, 90: 64, 95: 130, 99: 662, 99.9: 6636}
# sample counts -> rank of the certified p90 (1 = smallest)
GOLDEN_RANK_P90 = {100: 97, 200: 190, 1000: 922}

finite = st.floats(min_value=0, max_value=1e9, allow_nan=False)


@pytest.mark.parametrize(("percentile", "n"), GOLDEN_NEEDED.items())
def test_needed_samples_are_the_published_ones(percentile: float, n: int) -> None:
    assert needed_samples(percentile) == n


@pytest.mark.parametrize(("n", "rank"), GOLDEN_RANK_P90.items())
def test_certified_p90_is_the_published_order_statistic(n: int, rank: int) -> None:
    assert certified_percentile(np.arange(1, n + 1), 90) == rank


@pytest.mark.parametrize(("percentile", "n"), GOLDEN_NEEDED.items())
def test_one_sample_fewer_is_refused(percentile: float, n: int) -> None:
    samples = np.arange(1, n + 1)
    assert certified_percentile(samples[:-1], percentile) is None
    assert certified_percentile(samples, percentile) == n - 1


@pytest.mark.parametrize("samples", [[], [1.0]])
def test_almost_nothing_certifies_nothing(samples: list[float]) -> None:
    assert certified_percentile(samples, 50) is None
    assert empirical_percentile(samples, 90) is None


@given(st.lists(finite, min_size=64, max_size=300), st.randoms())
def test_order_does_not_matter_and_the_bound_is_a_sample(samples: list[float], rnd) -> None:
    bound = certified_percentile(samples, 90)
    shuffled = samples.copy()
    rnd.shuffle(shuffled)
    assert bound in samples
    assert certified_percentile(shuffled, 90) == bound


@given(st.integers(0, 2**32 - 1), st.integers(662, 3000), st.sampled_from([1, 10, 10**6]))
def test_bounds_rise_with_the_percentile_and_lie_above_the_empirical_one(
    seed: int, n: int, distinct: int
) -> None:
    samples = np.random.default_rng(seed).integers(distinct, size=n)
    bounds = [certified_percentile(samples, p) for p in (50, 90, 95, 99)]
    assert bounds == sorted(bounds)
    for p, bound in zip((50, 90, 95, 99), bounds, strict=True):
        empirical = empirical_percentile(samples, p)
        assert empirical is not None
        assert bound >= empirical


@given(st.integers(min_value=64, max_value=500))
def test_more_confidence_never_lowers_the_bound(n: int) -> None:
    samples = np.arange(n)
    low, high = (certified_percentile(samples, 90, c) for c in (0.95, 0.99))
    assert low is not None
    assert high is not None
    assert low <= high


def test_the_bound_holds_as_often_as_it_says() -> None:
    """In at least 99 % of experiments the true p90 is at or below the bound.

    2,000 experiments of 100 samples with a heavy tail, as latencies have. The probability that a
    correct bound (coverage 0.9922 for n = 100) is too low in more than 28 of 2,000 is below 0.2 %
    (binomial, mean 15.6); taking one rank less (coverage 0.976) gives about 47.
    """
    rng = np.random.default_rng(7)
    true_p90 = float(np.exp(1.2815515655446004))  # of exp(standard normal)
    failures = sum(
        certified_percentile(np.exp(rng.standard_normal(100)), 90) < true_p90 for _ in range(2000)
    )
    assert failures <= 28


@pytest.mark.parametrize(
    ("n", "percentile", "expected"),
    [(10, 90, 9), (9, 90, None), (100, 99, 99), (99, 99, None), (2, 50, 1), (101, 50, 51)],
)
def test_empirical_percentile_is_an_order_statistic(
    n: int, percentile: float, expected: float | None
) -> None:
    assert empirical_percentile(np.arange(1, n + 1), percentile) == expected


@pytest.mark.parametrize("percentile", [0, 100, -1, float("nan")])
def test_percentiles_without_a_meaning_are_our_own_bug(percentile: float) -> None:
    with pytest.raises(ValueError, match="out of range"):
        certified_percentile([1.0] * 100, percentile)
