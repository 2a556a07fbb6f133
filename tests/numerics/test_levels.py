from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekd.core.types import Affine, Codebook, PerChannel
from edgekd.numerics.encoding import decode
from edgekd.numerics.levels import integer_levels, levels

SCALE = np.float32([0.5, 0.03])
ROWS = PerChannel(axis=0)


def affine(bits: int, *, signed: bool, zero_point: int = 0, offset: object = None) -> Affine:
    zeros = np.full(2, zero_point, np.int32)
    offsets = None if offset is None else np.asarray(offset, np.float32)
    return Affine(bits, signed, ROWS, SCALE, zeros, offset=offsets)


def book(*centroids: float) -> Codebook:
    return Codebook(2, ROWS, np.float32(centroids), SCALE)


def test_the_value_of_every_code() -> None:
    assert levels(affine(2, signed=True)).tolist() == [0, 1, -2, -1]
    assert levels(affine(2, signed=False)).tolist() == [0, 1, 2, 3]
    assert levels(book(-1, 0.25)).tolist() == [-1, 0.25]


@pytest.mark.parametrize(
    ("encoding", "table"),
    [
        (affine(2, signed=True), [0, 1, -2, -1]),
        (affine(8, signed=True), [*range(128), *range(-128, 0)]),
        (affine(2, signed=False, zero_point=2), [-2, -1, 0, 1]),
        (affine(8, signed=False, zero_point=128), list(range(-128, 128))),
        (affine(1, signed=False, offset=-SCALE / 2), [-1, 1]),
        (book(-1, 1), [-1, 1]),
        (book(-0.7, 0, 0.7), [-1, 0, 1]),
        (book(-1, -0.25, 0, 0.5), [-4, -1, 0, 2]),
        (book(0, 0), [0, 0]),
    ],
)
def test_encodings_that_integer_kernels_compute(
    encoding: Affine | Codebook, table: list[int]
) -> None:
    found = integer_levels(encoding)
    assert found is not None
    integers, scale = found
    assert integers.tolist() == table
    codes = np.arange(len(table))[None].repeat(2, 0)
    signed = isinstance(encoding, Affine) and encoding.signed
    if signed:
        codes = np.where(codes >= len(table) // 2, codes - len(table), codes)
    real = decode(codes, encoding)
    np.testing.assert_allclose(integers * scale[:, None], real, rtol=1e-6)


@pytest.mark.parametrize(
    "encoding",
    [
        affine(8, signed=False),  # up to 255
        affine(2, signed=False, offset=[-0.3, 0.1]),  # groups shifted differently
        affine(2, signed=True, offset=SCALE * np.float32(0.1415927)),
        book(-1, 0.1415927, 0.7182818),
        replace(affine(2, signed=False), zero_point=np.int32([1, 2])),
    ],
)
def test_encodings_that_they_do_not(encoding: Affine | Codebook) -> None:
    assert integer_levels(encoding) is None


@given(st.lists(st.integers(-128, 127), min_size=1, max_size=9, unique=True), st.floats(0.01, 100))
def test_multiples_of_any_step_are_found(multiples: list[int], step: float) -> None:
    centroids = np.sort(np.float32(multiples) * np.float32(step))
    found = integer_levels(Codebook(4, ROWS, centroids, SCALE))
    assert found is not None
    largest = float(np.abs(centroids).max())
    for row, scale in enumerate(SCALE):
        wanted = centroids * scale
        assert np.abs(found[0] * found[1][row] - wanted).max() <= 2e-6 * largest * scale
