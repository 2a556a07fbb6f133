from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgekd.core.types import Affine, PerChannel, PerTensor
from edgekd.numerics import affine as numeric
from edgekd.quantize.fake_quant import ActivationFakeQuant, fake_quant
from edgekd.quantize.quantizers._contract import QUANTIZERS


def grid(scale: float = 0.1, zero_point: int = 3, *, signed: bool = False) -> Affine:
    return Affine(
        8, signed, PerTensor(), np.array(scale, np.float32), np.array(zero_point, np.int32)
    )


@given(st.integers(0, 2**16), st.booleans())
def test_the_forward_pass_is_the_numpy_reference(seed: int, signed: bool) -> None:
    affine = grid(0.037, 0 if signed else 17, signed=signed)
    values = np.random.default_rng(seed).normal(0, 3, 200).astype(np.float32)
    got = ActivationFakeQuant(affine, learned=False)(torch.from_numpy(values)).numpy()
    assert np.array_equal(got, numeric.round_trip(values, affine))


def test_the_value_gradient_passes_inside_and_stops_outside() -> None:
    value = torch.tensor([-5.0, 0.0, 1.0, 100.0], requires_grad=True)
    out = fake_quant(value, torch.tensor(0.1), torch.tensor(3.0), 0, 255)
    out.sum().backward()
    assert value.grad is not None
    assert value.grad.tolist() == [0.0, 1.0, 1.0, 0.0]  # codes run from -0.3 to 25.2


def test_the_scale_gradient_is_that_of_lsq() -> None:
    # LSQ eq. 3: inside, round(v/s) - v/s; beyond the ends, the end's code
    value = torch.tensor([0.26, 100.0, -5.0])
    scale = torch.tensor(0.1, requires_grad=True)
    fake_quant(value, scale, torch.tensor(0.0), 0, 255).sum().backward()
    assert scale.grad is not None
    assert scale.grad.item() == pytest.approx((3 - 2.6) + 255 + 0, abs=1e-4)


def test_the_scale_gradient_agrees_with_finite_differences_beyond_the_range() -> None:
    # where every value saturates the forward pass is linear in the scale: differences are exact
    value, step = torch.full((5,), 99.0), 1e-3
    scale = torch.tensor(0.1, requires_grad=True)
    fake_quant(value, scale, torch.tensor(0.0), 0, 255).sum().backward()
    up = fake_quant(value, torch.tensor(0.1 + step), torch.tensor(0.0), 0, 255).sum()
    down = fake_quant(value, torch.tensor(0.1 - step), torch.tensor(0.0), 0, 255).sum()
    assert scale.grad is not None
    assert scale.grad.item() == pytest.approx(((up - down) / (2 * step)).item(), rel=1e-3)


def test_per_channel_scales_get_their_own_gradients() -> None:
    value = torch.tensor([[0.26, 0.0], [100.0, 100.0]])
    scale = torch.tensor([[0.1], [0.2]], requires_grad=True)
    fake_quant(value, scale, torch.zeros(()), 0, 255).sum().backward()
    assert scale.grad is not None
    assert scale.grad.flatten().tolist() == pytest.approx([0.4, 510.0], abs=1e-4)


def test_a_learned_scale_moves_towards_a_smaller_error() -> None:
    torch.manual_seed(0)
    value = torch.rand(4096)
    module = ActivationFakeQuant(grid(0.05, 0), learned=True).train()
    optimizer = torch.optim.SGD(module.parameters(), lr=1.0)
    first = (module(value) - value).square().mean().item()
    for _ in range(200):
        optimizer.zero_grad()
        (module(value) - value).square().mean().mul(1000).backward()
        optimizer.step()
    assert (module(value) - value).square().mean().item() < first / 4
    assert float(module.affine().scale) < 0.05


def test_the_gradient_of_a_zero_point_by_hand() -> None:
    # scale 0.1, zero point 3: 1.0 lies inside; -5 and 100 are cut at (code - zero point) * scale
    value = torch.tensor([1.0, -5.0, 100.0])
    zero = torch.tensor(3.0, requires_grad=True)
    mix = torch.tensor([7.0, 2.0, 4.0])
    (fake_quant(value, torch.tensor(0.1), zero, 0, 255) * mix).sum().backward()
    assert zero.grad is not None
    assert zero.grad.item() == pytest.approx(-0.1 * (2 + 4))


def test_the_gradient_of_a_zero_point_agrees_with_finite_differences() -> None:
    # all cut: the forward pass is linear in the zero point, one whole step is exact
    value = torch.tensor([-50.0, 99.0, 60.0])
    zero = torch.tensor(3.0, requires_grad=True)
    scale = torch.tensor(0.1)
    fake_quant(value, scale, zero, 0, 255).sum().backward()
    up, here = (fake_quant(value, scale, torch.tensor(z), 0, 255).sum() for z in (4.0, 3.0))
    assert zero.grad is not None
    assert zero.grad.item() == pytest.approx((up - here).item(), rel=1e-4)


def test_a_learned_zero_point_finds_the_range_and_is_stored_as_an_integer() -> None:
    value = torch.rand(4096, generator=torch.Generator().manual_seed(0)) * 3 - 2  # -2 to 1
    module = ActivationFakeQuant(
        Affine(4, False, PerTensor(), np.array(0.2, np.float32), np.array(4, np.int32)),
        learned=True,
        learned_zero_point=True,
    )
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.01, weight_decay=0)
    first = (module(value) - value).square().mean().item()
    for _ in range(200):
        optimizer.zero_grad()
        (module(value) - value).square().mean().backward()
        optimizer.step()
    stored = module.affine()
    # two thirds of 15 codes lie below 0; the scale settles too, a little wide
    assert 7 <= int(stored.zero_point) <= 11
    reached = numeric.round_trip(value.numpy(), stored)
    assert np.array_equal(module(value).detach().numpy(), reached)
    assert np.square(reached - value.numpy()).mean() < first / 10


def test_a_zero_point_behind_a_relu_and_a_signed_one_stay() -> None:
    for affine in (grid(zero_point=0), grid(zero_point=0, signed=True)):
        module = ActivationFakeQuant(affine, learned=True, learned_zero_point=True)
        assert module.zero_shift is None


def test_minmax_trains_towards_the_codes_it_stores() -> None:
    weight = torch.randn(6, 4, 3, 3)
    quantizer = QUANTIZERS.build("minmax")
    fake = quantizer.fake_quant(weight, PerChannel(axis=0))
    encoding = fake.encoding(weight)
    assert isinstance(encoding, Affine)
    stored = numeric.round_trip(weight.numpy(), encoding)
    assert np.array_equal(fake(weight).numpy(), stored)
    assert encoding.scale.shape == (6,)
