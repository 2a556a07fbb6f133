from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgekd.core.types import Affine, PerBlock, PerChannel, PerTensor
from edgekd.numerics.affine import group_max_abs, round_trip, symmetric_scale
from edgekd.numerics.groups import members, scale_shape, to_rows
from edgekd.numerics.ranges import (
    LevelKind,
    Levels,
    least_squares_line,
    least_squares_scale,
    mean_abs_scale,
    min_max_line,
    min_max_scale,
)

_WEIGHTS = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=4, max_side=6),
    elements=st.floats(-100, 100, width=32, allow_subnormal=False),
)
_GROUPS = st.sampled_from([PerTensor(), PerChannel(axis=0), PerChannel(axis=1)])


def squared_error(
    weight: np.ndarray, scale: np.ndarray, groups: PerTensor | PerChannel, bits: int
) -> np.ndarray:
    zeros = np.zeros(scale.shape, np.int32)
    affine = Affine(bits, True, groups, scale, zeros, narrow=True)
    error = np.square((round_trip(weight, affine) - weight).astype(np.float64))
    if isinstance(groups, PerTensor):
        return np.array(error.sum())
    return error.sum(axis=tuple(i for i in range(weight.ndim) if i != groups.axis))


@given(_WEIGHTS, _GROUPS, st.integers(2, 8))
def test_it_never_errs_more_than_min_max(
    weight: np.ndarray, groups: PerTensor | PerChannel, bits: int
) -> None:
    scale = least_squares_scale(weight, groups, bits=bits)
    plain = symmetric_scale(group_max_abs(weight, groups), bits=bits)
    assert scale.shape == plain.shape
    assert scale.dtype == np.float32
    assert np.isfinite(scale).all()
    assert (scale > 0).all()
    found, least = (squared_error(weight, s, groups, bits) for s in (scale, plain))
    # the sums run in another order here
    assert (found <= least * (1 + 1e-9)).all()


def test_two_bits_by_hand() -> None:
    # codes -1, 0, 1. For 1, 1, 4: scale 4 gives 0, 0, 4 and error 2; scale 2 gives 0, 0, 2 (half
    # rounds to even) and 6; below 2 all become s, and s = mean = 2 is the best: 6. So 4 stays
    # For 3, 3, 3, 4: all are 1, the scale is their mean 3.25, error 0.75; at 4 it is 3
    weight = np.float32([[1, 1, 4, 0], [3, 3, 3, 4]])
    scale = least_squares_scale(weight, PerChannel(), bits=2)
    assert scale.tolist() == pytest.approx([4.0, 3.25], rel=1e-6)
    assert squared_error(weight, scale, PerChannel(), 2).tolist() == pytest.approx([2.0, 0.75])


def test_it_finds_the_best_scales_of_a_normal_distribution() -> None:
    # step over standard deviation of the best uniform mid-tread quantizer with 3 and 15 levels,
    # from minimizing the integral of the squared error: 1.224 and 0.354
    weight = np.random.default_rng(0).normal(size=200_000).astype(np.float32)
    for bits, step in ((2, 1.224), (4, 0.354)):
        found = float(least_squares_scale(weight, PerTensor(), bits=bits))
        assert found == pytest.approx(step, rel=0.03)


def test_channels_do_not_see_each_other() -> None:
    weight = np.random.default_rng(0).normal(size=(6, 50)).astype(np.float32)
    weight[2] = 0
    together = least_squares_scale(weight, PerChannel(), bits=3)
    alone = [least_squares_scale(row[None], PerChannel(), bits=3).item() for row in weight]
    assert together.tolist() == alone
    assert together[2] == 1


def test_the_mean_rule_by_hand() -> None:
    # 2 * mean(|1|, |-3|) / sqrt(7), and an empty channel
    weight = np.float32([[1, -3], [0, 0]])
    found = mean_abs_scale(weight, PerChannel(), bits=4).tolist()
    assert found == pytest.approx([4 / 7**0.5, 1.0])


@given(_WEIGHTS, st.sampled_from(["full", "mid_rise"]), st.integers(2, 8))
def test_other_levels_never_err_more_than_min_max_either(
    weight: np.ndarray, kind: LevelKind, bits: int
) -> None:
    # a block of 5 leaves a short last one, whose repeats must not count
    blocks = PerBlock(size=5)
    levels = Levels.of(kind, bits)
    found = levels.affine(least_squares_scale(weight, blocks, bits=bits, kind=kind), blocks, bits)
    rows = to_rows(weight, blocks)
    shape = scale_shape(weight.shape, blocks)
    plain = levels.affine(min_max_scale(rows, levels).reshape(shape), blocks, bits)
    assert (found.scale > 0).all()
    errors = [block_errors(weight, affine) for affine in (found, plain)]
    assert (errors[0] <= errors[1] * (1 + 1e-6) + 1e-24).all()


@given(_WEIGHTS, st.integers(1, 8))
def test_a_line_never_errs_more_than_the_extremes(weight: np.ndarray, bits: int) -> None:
    blocks = PerBlock(size=5)
    zeros = np.zeros(scale_shape(weight.shape, blocks), np.int32)
    scale, offset = least_squares_line(weight, blocks, bits=bits)
    found = Affine(bits, False, blocks, scale, zeros, offset=offset)
    widest, low, _ = min_max_line(to_rows(weight, blocks), bits=bits)
    plain = Affine(bits, False, blocks, widest, zeros, offset=low)
    assert (scale > 0).all()
    errors = [block_errors(weight, affine) for affine in (found, plain)]
    assert (errors[0] <= errors[1] * (1 + 1e-6) + 1e-24).all()


def block_errors(weight: np.ndarray, affine: Affine) -> np.ndarray:
    error = np.square((round_trip(weight, affine) - weight).astype(np.float64)).reshape(-1)
    sizes = members(weight.shape, affine.granularity)
    return np.array([part.sum() for part in np.split(error, np.cumsum(sizes)[:-1])])


def test_levels_by_hand() -> None:
    # -3, -1, 1, 3 are the levels -1.5, -0.5, 0.5, 1.5 times 2; -4, -2, 0, 2 all codes times 2
    mid = least_squares_scale(np.float32([[-3, -1, 1, 3]]), PerTensor(), bits=2, kind="mid_rise")
    assert float(mid) == pytest.approx(2.0)
    full = least_squares_scale(np.float32([[-4, -2, 0, 2]]), PerTensor(), bits=2, kind="full")
    assert float(full) == pytest.approx(2.0)
    scale, offset = least_squares_line(np.float32([[5, 7, 9, 11]]), PerTensor(), bits=2)
    assert (float(scale), float(offset)) == pytest.approx((2.0, 5.0))
    # one bit: two cells, each at its mean
    scale, offset = least_squares_line(np.float32([[0, 1, 10, 13]]), PerTensor(), bits=1)
    assert (float(scale), float(offset)) == pytest.approx((11.0, 0.5))


def test_no_zero_is_best_for_a_normal_distribution_at_two_bits() -> None:
    # Max 1960, table II: 4 even levels, step 0.9957, squared error 0.1188; -1, 0, 1 has 0.190
    weight = np.random.default_rng(0).normal(size=200_000).astype(np.float32)
    scale = least_squares_scale(weight, PerTensor(), bits=2, kind="mid_rise")
    assert float(scale) == pytest.approx(0.9957, rel=0.03)
    affine = Levels.of("mid_rise", 2).affine(scale, PerTensor(), 2)
    assert np.square(round_trip(weight, affine) - weight).mean() == pytest.approx(0.1188, rel=0.02)
    line = least_squares_line(weight, PerTensor(), bits=2)
    assert line[0] == pytest.approx(0.9957, rel=0.03)
    assert line[1] == pytest.approx(-1.5 * 0.9957, rel=0.03)


def test_a_constant_group_is_met_exactly() -> None:
    scale, offset = least_squares_line(np.full((2, 3), 0.3, np.float32), PerChannel(), bits=2)
    assert scale.tolist() == [1.0, 1.0]
    assert offset.tolist() == [np.float32(0.3)] * 2
