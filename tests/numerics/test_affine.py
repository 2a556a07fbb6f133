from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgekd.core.types import Affine, PerBlock, PerChannel, PerTensor
from edgekd.numerics import affine

_REALS = hnp.arrays(
    np.float32, st.integers(1, 64), elements=st.floats(-100, 100, width=32, allow_subnormal=False)
)


def per_tensor(scale: float, zero_point: int, *, signed: bool, bits: int = 8) -> Affine:
    return Affine(
        bits, signed, PerTensor(), np.array(scale, np.float32), np.array(zero_point, np.int32)
    )


def test_codes_are_those_of_onnx_quantize_linear() -> None:
    # half-way cases round to even: 0.5 -> 0, 1.5 -> 2, -2.5 -> -2; 300 saturates
    codes = affine.encode(np.float32([0.5, 1.5, -2.5, 300.0]), per_tensor(1.0, 0, signed=True))
    assert codes.tolist() == [0, 2, -2, 127]


def test_narrow_range_leaves_out_the_lowest_code() -> None:
    wide = per_tensor(1.0, 0, signed=True)
    narrow = Affine(8, True, PerTensor(), wide.scale, wide.zero_point, narrow=True)
    assert (wide.code_min, narrow.code_min) == (-128, -127)
    assert affine.encode(np.float32([-500.0]), narrow).tolist() == [-127]


@given(_REALS, st.integers(2, 8))
def test_asymmetric_grid_holds_zero_exactly_and_errs_at_most_half_a_step(
    values: np.ndarray, bits: int
) -> None:
    scale, zero = affine.asymmetric_range(float(values.min()), float(values.max()), bits=bits)
    grid = Affine(bits, False, PerTensor(), scale, zero)
    assert affine.round_trip(np.float32([0.0]), grid).tolist() == [0.0]
    back = affine.round_trip(values, grid)
    # half a step from rounding the value, another half because the zero point was rounded
    assert np.abs(back - values).max() <= float(scale) * 1.0 + 1e-4


@given(_REALS, st.integers(2, 8))
def test_symmetric_grid_errs_at_most_half_a_step(values: np.ndarray, bits: int) -> None:
    scale = affine.symmetric_scale(np.abs(values).max(keepdims=True), bits=bits)
    grid = Affine(bits, True, PerTensor(), scale[0], np.array(0, np.int32), narrow=True)
    assert np.abs(affine.round_trip(values, grid) - values).max() <= float(scale[0]) * 0.5001


@given(_REALS)
def test_a_second_round_trip_changes_nothing(values: np.ndarray) -> None:
    scale, zero = affine.asymmetric_range(float(values.min()), float(values.max()), bits=8)
    grid = Affine(8, False, PerTensor(), scale, zero)
    once = affine.round_trip(values, grid)
    assert np.array_equal(affine.round_trip(once, grid), once)


def test_the_zero_point_is_the_nearest_code() -> None:
    # scale 2.2 / 3: zero lies 1.64 steps above the lower end, or 1.36
    for low, high, wanted in ((-1.2, 1.0, 2), (-1.0, 1.2, 1)):
        scale, zero = affine.asymmetric_range(low, high, bits=2)
        assert float(scale) == pytest.approx(2.2 / 3)
        assert int(zero) == wanted


def test_a_range_of_nothing_has_scale_one() -> None:
    scale, zero = affine.asymmetric_range(0.0, 0.0, bits=8)
    assert (float(scale), int(zero)) == (1.0, 0)
    assert affine.symmetric_scale(np.float32([0.0]), bits=8).tolist() == [1.0]


def test_each_channel_has_its_own_scale() -> None:
    weight = np.float32([[1.0, -2.0], [0.5, 0.25]])
    assert affine.group_max_abs(weight, PerChannel(axis=0)).tolist() == [2.0, 0.5]
    assert affine.group_max_abs(weight, PerChannel(axis=1)).tolist() == [1.0, 2.0]
    assert affine.group_max_abs(weight, PerTensor()).tolist() == 2.0


@pytest.mark.parametrize("size", [2, 3, 7])
def test_blocks_run_through_memory_order(size: int) -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    groups = -(-values.size // size)
    scale = np.arange(1, groups + 1, dtype=np.float32)
    grid = Affine(8, True, PerBlock(size=size), scale, np.zeros(groups, np.int32))
    expected = [round(v / (1 + i // size)) * (1 + i // size) for i, v in enumerate(range(6))]
    assert affine.round_trip(values, grid).ravel().tolist() == expected
