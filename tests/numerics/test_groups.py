from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgekd.core.types import PerBlock, PerChannel, PerTensor
from edgekd.numerics import groups
from edgekd.quantize import grouping

GRANULARITIES = st.one_of(
    st.just(PerTensor()),
    st.integers(0, 2).map(lambda axis: PerChannel(axis=axis)),
    st.integers(2, 40).map(lambda size: PerBlock(size=size)),
)
SHAPES = st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 3))


@given(SHAPES, GRANULARITIES)
def test_rows_and_back(shape: tuple[int, ...], granularity: groups.Granularity) -> None:
    weight = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    rows = groups.to_rows(weight, granularity)
    assert rows.shape[0] == int(np.prod(groups.scale_shape(shape, granularity)))
    assert np.array_equal(groups.from_rows(rows, shape, granularity), weight)
    assert groups.members(shape, granularity).sum() == weight.size
    # a number per group reaches exactly the members of its row
    numbers = np.arange(rows.shape[0], dtype=np.float32)
    spread = groups.spread(numbers, shape, granularity)
    again = groups.to_rows(np.broadcast_to(spread, shape).astype(np.float32), granularity)
    assert np.array_equal(again, np.broadcast_to(numbers[:, None], rows.shape))


@given(SHAPES, GRANULARITIES)
def test_torch_groups_as_numpy_does(
    shape: tuple[int, ...], granularity: groups.Granularity
) -> None:
    weight = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    tensor = torch.from_numpy(weight)
    rows = grouping.to_rows(tensor, granularity)
    assert np.array_equal(rows.numpy(), groups.to_rows(weight, granularity))
    assert torch.equal(grouping.from_rows(rows, tensor.shape, granularity), tensor)
    numbers = torch.arange(len(rows), dtype=torch.float32).reshape(
        groups.scale_shape(shape, granularity)
    )
    spread = grouping.aligned(numbers, tensor.shape, granularity)
    expected = groups.spread(numbers.numpy(), shape, granularity)
    assert np.array_equal(np.broadcast_to(spread.numpy(), shape), np.broadcast_to(expected, shape))


def test_a_short_last_block_is_counted_short() -> None:
    assert groups.members((3, 5), PerBlock(size=4)).tolist() == [4, 4, 4, 3]


@pytest.mark.parametrize("size", [2, 7])
def test_gradients_reach_one_number_per_block(size: int) -> None:
    numbers = torch.ones(-(-15 // size), requires_grad=True)
    grouping.aligned(numbers, torch.Size((3, 5)), PerBlock(size=size)).sum().backward()
    assert numbers.grad is not None
    assert numbers.grad.tolist() == groups.members((3, 5), PerBlock(size=size)).tolist()
