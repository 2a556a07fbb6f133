from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from edgekd.core.errors import DataError, RecipeError
from edgekd.core.types import Affine, PerChannel, PerTensor
from edgekd.numerics import affine as numeric
from edgekd.quantize.fake_quant import fake_quant
from edgekd.quantize.quantizers._contract import QUANTIZERS
from tests.quantize.nets import trained_looking
from tests.quantize.test_convert import aware


def scale_of(fake: object, weight: torch.Tensor) -> np.ndarray:
    encoding = fake.encoding(weight)  # type: ignore[attr-defined]
    assert isinstance(encoding, Affine)
    return encoding.scale


@pytest.mark.parametrize("name", ["minmax", "mse"])
def test_one_bit_and_nine_bits_are_refused(name: str) -> None:
    for bits in (1, 9):
        with pytest.raises(RecipeError, match=rf"bits: Input should be .* got {bits}"):
            QUANTIZERS.build({"name": name, "bits": bits})


def test_mse_searches_every_so_many_training_steps_and_stands_still_between() -> None:
    weight = torch.randn(4, 9, generator=torch.Generator().manual_seed(0))
    fake = QUANTIZERS.build({"name": "mse", "bits": 3, "refresh_steps": 2}).fake_quant(
        weight, PerChannel()
    )
    first = scale_of(fake, weight)
    changing = []
    for factor in (2.0, 3.0, 4.0, 5.0):
        out = fake(weight * factor)
        scale = scale_of(fake, weight)  # of the last forward, whatever is asked about
        stored = numeric.round_trip((weight * factor).numpy(), fake.encoding(weight))  # type: ignore[arg-type]
        assert np.array_equal(out.numpy(), stored)
        changing.append(float((scale / first).mean()))
    # steps 0 and 1 use the start's scale, step 2 searches on 4 times the weight
    assert changing == pytest.approx([1, 1, 4, 4], rel=1e-5)
    assert isinstance(fake, nn.Module)
    fake.eval()
    fake(weight)
    assert int(fake.steps) == 4


def test_lsq_starts_where_it_is_told() -> None:
    weight = np.float32([[1, -3, 1, 3]])
    build = QUANTIZERS.build
    mean = build({"name": "lsq", "bits": 4, "start": "mean_abs"}).encode(weight, PerTensor())
    assert isinstance(mean, Affine)
    assert float(mean.scale) == pytest.approx(4 / 7**0.5)  # 2 * mean|w| / sqrt(7), mean|w| = 2
    mse = build({"name": "lsq", "bits": 3}).encode(weight, PerTensor())
    assert isinstance(mse, Affine)
    assert float(mse.scale) == pytest.approx(1.0)  # codes 1, -3, 1, 3: no error at all


def test_the_gradient_of_an_lsq_scale_by_hand() -> None:
    # scale 1, two bits: 0.4 -> 0 (error -0.4), -3 -> -1 (cut: the code); the factor is
    # 1 / (sqrt(2 weights * largest code 1) * 1^2)
    weight = torch.tensor([[0.4, -3.0]], requires_grad=True)
    fake = QUANTIZERS.build({"name": "lsq", "bits": 2}).fake_quant(weight, PerTensor())
    assert isinstance(fake, nn.Module)
    fake.start_scale.fill_(1.0)  # type: ignore[operator, union-attr]
    fake.gradient_factor = 1 / 2**0.5  # type: ignore[assignment]
    fake(weight).sum().backward()
    assert fake.log_gain.grad.item() == pytest.approx(-1.4 / 2**0.5)  # type: ignore[union-attr]
    assert weight.grad is not None
    assert weight.grad.tolist() == [[1.0, 0.0]]


def test_lsq_per_channel_has_the_gradient_of_finite_differences() -> None:
    # codes do not change under a step this small, so the forward pass is linear in each scale
    weight = torch.randn(3, 40, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    scale = torch.tensor([[0.31], [0.52], [1.1]], dtype=torch.float64, requires_grad=True)
    zero, step = torch.zeros((), dtype=torch.float64), 1e-7
    mix = torch.linspace(-1, 1, 40, dtype=torch.float64)
    # straight-through adds -weight / scale inside the range: LSQ's gradient by definition
    fake_quant(weight, scale, zero, -3, 3).mul(mix).sum().backward()
    assert scale.grad is not None
    for row in range(3):
        moved = scale.detach().clone()
        moved[row] += step
        up = fake_quant(weight, moved, zero, -3, 3).mul(mix).sum()
        change = (up - fake_quant(weight, scale.detach(), zero, -3, 3).mul(mix).sum()) / step
        inside = (weight[row] / scale.detach()[row]).abs() <= 3.5
        through = (weight[row] / scale.detach()[row] * mix)[inside].sum()
        assert scale.grad[row].item() == pytest.approx((change - through).item(), abs=1e-4)


def test_one_scale_and_one_per_channel_have_the_same_gradients() -> None:
    value = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(2))
    grads = []
    for layout in (torch.contiguous_format, torch.channels_last):
        for shape in ((), (1, 1, 1, 1)):
            x = value.clone(memory_format=layout).requires_grad_()
            scale = torch.full(shape, 0.2, requires_grad=True)
            # a zero point that broadcasts sends the value through the general form
            zero = torch.full((3, 1, 1) if shape else (), 3.0)
            fake_quant(x, scale, zero, 0, 15).square().sum().backward()
            assert x.grad is not None
            assert scale.grad is not None
            grads.append((x.grad, scale.grad.reshape(())))
    for x_grad, scale_grad in grads[1:]:
        assert torch.equal(x_grad, grads[0][0])
        # the same terms in float32, summed in another order
        assert scale_grad.item() == pytest.approx(grads[0][1].item(), rel=1e-4)


def test_an_lsq_scale_finds_the_least_error_from_a_bad_start() -> None:
    weight = torch.randn(4, 200, generator=torch.Generator().manual_seed(3))
    quantizer = QUANTIZERS.build({"name": "lsq", "bits": 4, "start": "mean_abs"})
    fake = quantizer.fake_quant(weight, PerChannel())
    best = QUANTIZERS.build({"name": "mse", "bits": 4}).encode(weight.numpy(), PerChannel())
    assert isinstance(fake, nn.Module)
    assert isinstance(best, Affine)
    optimizer = torch.optim.AdamW(fake.parameters(), lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        (fake(weight) - weight).square().sum().backward()
        optimizer.step()
    least = float(np.square(numeric.round_trip(weight.numpy(), best) - weight.numpy()).mean())
    reached = (fake(weight) - weight).square().mean().item()
    # the gradient is an estimate through the rounding: near the least error, not at it; the
    # search itself stops within a percent of the least
    assert 0.99 * least <= reached < 1.1 * least


def test_an_empty_channel_keeps_a_positive_scale_of_its_neighbours_size() -> None:
    weight = torch.randn(4, 20, generator=torch.Generator().manual_seed(4))
    weight[1] = 0
    quantizer = QUANTIZERS.build({"name": "lsq", "bits": 4})
    fake = quantizer.fake_quant(weight, PerChannel())
    assert isinstance(fake, nn.Module)
    fake(weight).square().sum().backward()
    assert fake.log_gain.grad[1] == 0  # type: ignore[index, union-attr]
    scale = scale_of(fake, weight)
    assert scale.min() > 0
    assert scale[1] == pytest.approx(scale[[0, 2, 3]].mean())
    nothing = quantizer.encode(np.zeros((2, 3), np.float32), PerChannel())
    assert isinstance(nothing, Affine)
    assert nothing.scale.tolist() == [1.0, 1.0]


def test_the_rate_of_lsq_scales_reaches_the_optimizer() -> None:
    fake = QUANTIZERS.build({"name": "lsq", "lr_scale": 0.5}).fake_quant(
        torch.ones(2, 2), PerTensor()
    )
    assert fake.log_gain.lr_scale == 0.5  # type: ignore[attr-defined]


def test_a_weight_that_is_not_finite_is_refused_by_name() -> None:
    net = trained_looking("dense")
    with torch.no_grad():
        net.head.weight[0, 0] = float("nan")  # type: ignore[union-attr, index, operator]
    with pytest.raises(DataError, match="The weight of the layer 'head' is not finite"):
        aware(net)
