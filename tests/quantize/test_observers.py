"""What an observer reads off the values that it sees."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.core.errors import DataError
from edgekd.numerics.affine import decode, round_trip
from edgekd.quantize.observers import Observer, RangeRule

_RULES: tuple[RangeRule, ...] = ("minmax", "percentile", "mse")


def seen(*batches: np.ndarray, kept_values: int = 1 << 17) -> Observer:
    observer = Observer("x", seed=0, kept_values=kept_values)
    total = sum(len(batch) for batch in batches)
    for batch in batches:
        observer.observe(batch.astype(np.float32), share=len(batch) / total)
    return observer


def test_extremes_come_from_every_batch() -> None:
    affine = seen(np.array([-1.0, 0.0]), np.array([0.5, 3.0]), np.array([0.0, 1.0])).affine(
        "minmax", bits=8, signed=False
    )
    low, high = decode(np.array([0, 255]), affine)
    assert (float(low), float(high)) == pytest.approx((-1.0, 3.0), abs=float(affine.scale))
    signed = seen(np.array([-4.0, 1.0])).affine("minmax", bits=8, signed=True)
    assert float(signed.scale) == pytest.approx(4 / 127)
    assert not signed.zero_point.any()


def test_a_percentile_cuts_both_ends() -> None:
    values = np.concatenate([np.linspace(-1, 2, 99_998), [-500.0, 900.0]])
    affine = seen(values).affine("percentile", bits=8, signed=False)
    low, high = decode(np.array([0, 255]), affine)
    assert (float(low), float(high)) == pytest.approx((-1.0, 2.0), abs=0.02)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_no_shrunk_range_errs_less(bits: int) -> None:
    values = np.random.default_rng(0).laplace(size=20_000).astype(np.float32)
    observer = seen(values)
    found = observer.affine("mse", bits=bits, signed=True)
    error = float(np.square(round_trip(values, found) - values).mean())
    whole = observer.affine("minmax", bits=bits, signed=True)
    for share in np.linspace(0.4, 1, 61):
        other = type(found)(
            bits, True, found.granularity, whole.scale * np.float32(share), found.zero_point
        )
        # the search has 31 steps, these are 61
        assert error <= 1.01 * float(np.square(round_trip(values, other) - values).mean())
    # the fewer the bits, the more of the tail is cut
    assert float(found.scale) < {2: 0.5, 4: 0.7, 8: 1.0}[bits] * float(whole.scale)


def test_a_short_last_batch_counts_as_the_samples_it_has() -> None:
    ones, one = np.ones((99, 50)), np.full((1, 50), 10.0)
    sample = np.concatenate(seen(ones, one, kept_values=1000)._kept)
    assert (sample == 10).mean() == pytest.approx(0.01)


@pytest.mark.parametrize("rule", _RULES)
def test_huge_outliers_and_one_value_alone_have_a_range(rule: RangeRule) -> None:
    values = np.where(np.arange(1000) % 500 == 0, 1e30, 1.0)
    for signed in (True, False):
        for found in (values, -values, np.array([3.0]), np.zeros(4)):
            affine = seen(found).affine(rule, bits=8, signed=signed)
            assert np.isfinite(affine.scale)
            assert affine.scale > 0
            assert affine.code_min <= int(affine.zero_point) <= affine.code_max


def test_nothing_seen_is_named() -> None:
    with pytest.raises(DataError, match="Nothing was seen of the activation 'x'"):
        Observer("x", seed=0).affine("mse", bits=8, signed=False)
