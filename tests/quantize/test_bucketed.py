from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import nn

from edgekd.core.types import PerBlock, PerChannel, PerTensor
from edgekd.numerics.encoding import encode, round_trip
from edgekd.quantize.quantizers._contract import QUANTIZERS

_WEIGHTS = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=3, max_side=7),
    elements=st.floats(-100, 100, width=32, allow_subnormal=False),
)
_GROUPS = st.sampled_from([PerTensor(), PerChannel(axis=0), PerBlock(size=4)])
GRANULARITY = PerTensor | PerChannel | PerBlock


def bucketed(**settings: Any) -> Any:
    return QUANTIZERS.build({"name": "bucketed", **settings})


def noise_like(weight: torch.Tensor, seed: int) -> torch.Tensor:
    return torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed))


def test_two_blocks_by_hand() -> None:
    # the first block's points are 0, 2, 4, 6; the second's 10, 12, 14, 16, its tail one short
    weight = np.float32([0.0, 0.9, 2.5, 6.0, 16.0, 10.0, 12.9])
    encoding = bucketed(bits=2).encode(weight, PerBlock(size=4))
    assert encoding.scale.tolist() == [2.0, 2.0]
    assert encoding.offset.tolist() == [0.0, 10.0]
    assert encode(weight, encoding).tolist() == [0, 0, 1, 3, 3, 0, 1]
    assert round_trip(weight, encoding).tolist() == [0.0, 0.0, 2.0, 6.0, 16.0, 10.0, 12.0]


@given(_WEIGHTS, _GROUPS, st.integers(1, 8))
def test_training_computes_the_reference_and_errs_half_a_step_at_most(
    weight: np.ndarray, granularity: GRANULARITY, bits: int
) -> None:
    quantizer = bucketed(bits=bits)
    encoding = quantizer.encode(weight, granularity)
    stored = round_trip(weight, encoding)
    tensor = torch.from_numpy(weight)
    assert np.array_equal(quantizer.fake_quant(tensor, granularity)(tensor).numpy(), stored)
    # a point near 100 carries 100 * 2**-24 of its own
    assert (np.abs(stored - weight).max()) <= 0.5 * encoding.scale.max() + 2e-5
    again = round_trip(stored, quantizer.encode(stored, granularity))
    assert np.allclose(again, stored, atol=1e-4)
    times_8 = round_trip(weight * 8, quantizer.encode(weight * 8, granularity))
    assert np.allclose(times_8, stored * 8, rtol=1e-5, atol=1e-3)


def test_a_constant_block_stays_as_it_is() -> None:
    weight = np.float32([0.3, 0.3, 0.3, 0.3, 1.0, 2.0, 1.0, 2.0])
    for bits in (1, 4):
        encoding = bucketed(bits=bits).encode(weight, PerBlock(size=4))
        assert encoding.scale[0] == 1.0
        assert np.array_equal(round_trip(weight, encoding), weight)
    tensor = torch.from_numpy(weight).requires_grad_()
    bucketed(bits=4, gradient="exact").fake_quant(tensor, PerBlock(size=4))(
        tensor
    ).sum().backward()
    assert tensor.grad is not None
    assert tensor.grad[:4].tolist() == [1.0] * 4


def test_straight_through_hands_the_gradient_on() -> None:
    weight = torch.randn(3, 10, requires_grad=True, generator=torch.Generator().manual_seed(0))
    mix = noise_like(weight, 1)
    (bucketed(bits=2).fake_quant(weight, PerBlock(size=8))(weight) * mix).sum().backward()
    assert weight.grad is not None
    # out = above + low: the two ways to the extremes cancel
    assert torch.equal(weight.grad, mix)


def test_the_exact_gradient_by_its_formula() -> None:
    weight = torch.randn(4, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()
    mix = noise_like(weight, 1)
    fake = bucketed(bits=2, gradient="exact").fake_quant(weight, PerChannel())
    out = fake(weight)
    (out * mix).sum().backward()
    values = weight.detach()
    low, high = values.amin(1, keepdim=True), values.amax(1, keepdim=True)
    # g + (d alpha / d v)^T [g * (q - u)], q and u the stored and the float value scaled to 0 to 1
    gained = (mix * (out.detach() - values) / (high - low)).sum(1)
    wanted = mix.clone()
    rows = torch.arange(4)
    wanted[rows, values.argmax(1)] += gained
    wanted[rows, values.argmin(1)] -= gained
    assert weight.grad is not None
    assert torch.allclose(weight.grad, wanted, atol=1e-5)


def test_the_exact_gradient_through_the_extremes_agrees_with_finite_differences() -> None:
    # moving an extreme moves every point of its group, codes unchanged: the forward pass is linear
    weight = torch.randn(1, 24, generator=torch.Generator().manual_seed(3)).double()
    mix = noise_like(weight, 4).double()
    fake = bucketed(bits=3, gradient="exact").fake_quant(weight.float(), PerTensor())

    def loss(values: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = fake(values)
        return (out * mix).sum()

    leaf = weight.clone().requires_grad_()
    loss(leaf).backward()
    assert leaf.grad is not None
    top, step = int(weight.argmax()), 1e-6
    moved = weight.clone()
    moved[0, top] += step
    change = float((loss(moved) - loss(weight)) / step)
    # straight-through adds (value - low) / width of every other weight's gradient
    low, width = weight.min(), weight.max() - weight.min()
    through = mix * (weight - low) / width
    through[0, top] = 0
    assert leaf.grad[0, top].item() == pytest.approx(change - through.sum().item(), abs=1e-5)


def test_stochastic_rounding_keeps_the_mean_and_stays_on_the_points() -> None:
    weight = torch.rand(4, 16, generator=torch.Generator().manual_seed(0))
    fake = bucketed(bits=2, rounding="stochastic").fake_quant(weight, PerTensor()).train()
    draws = torch.stack([fake(weight) for _ in range(600)])
    low, step = weight.min(), (weight.max() - weight.min()) / 3
    codes = (draws - low) / step
    assert torch.allclose(codes, codes.round(), atol=1e-5)
    assert codes.round().min() == 0
    assert codes.round().max() == 3
    # the mean of 600 draws of at most a step's half deviation: five standard errors
    assert float((draws.mean(0) - weight).abs().max()) < 5 * 0.5 * float(step) / 600**0.5
    assert torch.equal(
        fake.eval()(weight), bucketed(bits=2).fake_quant(weight, PerTensor())(weight)
    )


def test_stochastic_rounding_goes_on_where_it_was_resumed() -> None:
    weight = torch.rand(4, 16, generator=torch.Generator().manual_seed(0))

    def module() -> nn.Module:
        made: nn.Module = bucketed(bits=2, rounding="stochastic").fake_quant(weight, PerTensor())
        return made.train()

    whole, first, second = module(), module(), module()
    outputs = [whole(weight) for _ in range(3)]
    assert torch.equal(first(weight), outputs[0])
    assert not torch.equal(outputs[0], outputs[1])
    second.load_state_dict(first.state_dict())
    assert torch.equal(second(weight), outputs[1])
