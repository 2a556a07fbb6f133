from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgekd.core.types import Affine, Codebook, PerBlock, PerTensor
from edgekd.numerics import encoding

_WEIGHTS = hnp.arrays(
    np.float32, st.integers(1, 64), elements=st.floats(-10, 10, width=32, allow_subnormal=False)
)


def test_offset_moves_the_grid() -> None:
    grid = Affine(
        2,
        False,
        PerBlock(size=2),
        np.float32([1.0, 10.0]),
        np.zeros(2, np.int32),
        offset=np.float32([0.5, -10.0]),
    )
    weight = np.float32([0.6, 9.0, -10.0, 4.0])
    assert encoding.encode(weight, grid).tolist() == [0, 3, 0, 1]
    assert encoding.round_trip(weight, grid).tolist() == [0.5, 3.5, -10.0, 0.0]


def test_the_nearest_point_wins() -> None:
    book = Codebook(2, PerTensor(), np.float32([-1.0, 0.0, 2.0]), np.array(2.0, np.float32), None)
    weight = np.float32([-9.0, -1.0, -0.9, 2.1, 9.0])
    assert encoding.encode(weight, book).tolist() == [0, 0, 1, 2, 2]
    assert encoding.round_trip(weight, book).tolist() == [-2.0, -2.0, 0.0, 4.0, 4.0]


@given(_WEIGHTS, st.integers(2, 16))
def test_a_codebook_errs_least_of_all_its_points(weight: np.ndarray, points: int) -> None:
    centroids = np.sort(np.random.default_rng(points).normal(size=points)).astype(np.float32)
    book = Codebook(4, PerTensor(), centroids, np.array(3.0, np.float32))
    errors = np.abs(weight[:, None] - 3 * centroids[None, :])
    found = np.abs(encoding.round_trip(weight, book) - weight)
    assert np.allclose(found, errors.min(axis=1), atol=1e-5)


def test_stored_bytes_count_everything_but_zeros() -> None:
    # 1,000 codes of 2 bits, 4 blocks with scale and offset
    blocks = np.ones(4, np.float32)
    zeros, offset = np.zeros(4, np.int32), np.float32([1, 2, 3, 4])
    grid = Affine(2, False, PerBlock(size=256), blocks, zeros, offset=offset)
    assert encoding.stored_bytes(1000, grid) == 250 + 4 * 8
    without_zero = Affine(2, True, PerBlock(size=256), offset, zeros, offset=0.5 * offset)
    assert encoding.stored_bytes(1000, without_zero) == 250 + 4 * (4 + 1)
    plain = Affine(8, True, PerTensor(), np.array(1.0, np.float32), np.array(0, np.int32))
    assert encoding.stored_bytes(1000, plain) == 1000 + 4
    book = Codebook(4, PerBlock(size=256), np.arange(16, dtype=np.float32), blocks)
    assert encoding.stored_bytes(1000, book) == 500 + 4 * (16 + 4)
