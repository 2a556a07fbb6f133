from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgekd.core.types import Codebook, PerBlock, PerTensor
from edgekd.numerics import encoding, points

_WEIGHTS = hnp.arrays(
    np.float32, st.integers(1, 80), elements=st.floats(-10, 10, width=32, allow_subnormal=False)
)
_COUNTS = st.integers(2, 17)


def start(weight: np.ndarray, count: int, size: int = 8) -> Codebook:
    granularity = PerBlock(size=size)
    scale, offset = points.group_span(weight, granularity)
    inside = points.scaled(weight, scale, offset, granularity)
    return Codebook(5, granularity, points.quantile_points(inside, count), scale, offset)


def test_two_blocks_by_hand() -> None:
    # scaled: 0, 1/4, 1/2, 1 and 0, 1/4, 1/4, 1; the median of the eight is 1/4
    weight = np.float32([1, 2, 3, 5, -1, 1, 1, 7])
    book = start(weight, 3, size=4)
    assert book.scale.tolist() == [4, 8]
    assert book.offset is not None
    assert book.offset.tolist() == [1, -1]
    assert book.centroids.tolist() == [0, 0.25, 1]
    # 1/2 lies nearer to 1/4 (its distance 1/4) than to 1 (1/2)
    assert encoding.encode(weight, book).tolist() == [0, 1, 1, 2, 0, 1, 1, 2]
    assert encoding.round_trip(weight, book).tolist() == [1, 2, 2, 5, -1, 1, 1, 7]
    codes = encoding.encode(weight, book)
    grad = np.arange(1, 9, dtype=np.float32)
    # 4 * 1 + 8 * 5; 4 * (2 + 3) + 8 * (6 + 7); 4 * 4 + 8 * 8
    found = points.point_gradient(grad, codes, book.scale, book.granularity, 3)
    assert found.tolist() == [44, 124, 80]


@given(_WEIGHTS, _COUNTS)
def test_points_ascend_from_the_least_weight_to_the_greatest(w: np.ndarray, count: int) -> None:
    book = start(w, count)
    assert (np.diff(book.centroids) >= 0).all()
    assert book.centroids.size <= count
    assert book.centroids[0] == 0
    assert 0 <= book.centroids[-1] <= 1
    assert (book.scale > 0).all()


@given(_WEIGHTS, _COUNTS)
def test_rounding_twice_is_rounding_once(w: np.ndarray, count: int) -> None:
    book = start(w, count)
    once = encoding.round_trip(w, book)
    assert np.allclose(encoding.round_trip(once, book), once, atol=1e-5)


@given(st.integers(0, 50), st.sampled_from([4, 8, 16]))
def test_most_weights_err_less_at_quantiles_than_at_even_steps(seed: int, count: int) -> None:
    weight = np.random.default_rng(seed).laplace(size=2000).astype(np.float32) ** 3
    scale, offset = points.group_span(weight, PerTensor())
    inside = points.scaled(weight, scale, offset, PerTensor())
    errors = [
        np.abs(encoding.round_trip(weight, book) - weight)
        for book in (
            Codebook(4, PerTensor(), place(inside, count), scale, offset)
            for place in (points.quantile_points, points.uniform_points)
        )
    ]
    # the few in the tails err more
    assert np.median(errors[0]) < 0.5 * np.median(errors[1])


@pytest.mark.parametrize("place", [points.quantile_points, points.uniform_points])
def test_few_different_weights_are_stored_exactly(place: object) -> None:
    weight = np.float32([[1, 2, 2, 4], [1, 2, 4, 4]])
    scale, offset = points.group_span(weight, PerTensor())
    found = place(points.scaled(weight, scale, offset, PerTensor()), 16)  # type: ignore[operator]
    assert found.size == 3
    book = Codebook(4, PerTensor(), found, scale, offset)
    assert np.allclose(encoding.round_trip(weight, book), weight, atol=1e-6)


def test_a_constant_group_keeps_its_value_whatever_the_points_become() -> None:
    weight = np.float32([3, 3, 3, 3, 0, 0, 0, 0, -1, 0, 1, 2])
    book = start(weight, 4, size=4)
    moved = Codebook(
        5, book.granularity, book.centroids + np.float32(0.4), book.scale, book.offset
    )
    back = encoding.round_trip(weight, moved)[:8]
    assert np.allclose(back, weight[:8], rtol=0, atol=1e-12)


def test_even_points() -> None:
    values = np.linspace(0, 1, 50).astype(np.float32)
    assert points.uniform_points(values, 5).tolist() == [0, 0.25, 0.5, 0.75, 1]
