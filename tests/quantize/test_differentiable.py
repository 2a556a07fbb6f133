from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from edgekd.core.errors import DataError, RecipeError
from edgekd.core.types import PerBlock, PerChannel, PerTensor
from edgekd.numerics import codebook, points
from edgekd.numerics import encoding as numeric
from edgekd.quantize.grouping import aligned
from edgekd.quantize.nearest import nearest, on_points
from edgekd.quantize.quantizers._contract import QUANTIZERS
from edgekd.quantize.quantizers.differentiable import Differentiable, DifferentiableFakeQuant
from tests.quantize.nets import trained_looking
from tests.quantize.test_convert import aware

GRANULARITIES = (PerTensor(), PerChannel(axis=0), PerBlock(size=16), PerBlock(size=7))


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def module(weight: Tensor, granularity: Any = None, **fields: Any) -> DifferentiableFakeQuant:
    fake = Differentiable(**fields).fake_quant(weight, granularity or PerTensor())
    assert isinstance(fake, DifferentiableFakeQuant)
    return fake


def test_a_weight_by_hand() -> None:
    # span 4: scaled 0, 1/4, 1/2, 3/4, 1; points at 0, 1/2, 1; a quarter goes to the lower one
    weight = torch.tensor([[-2.0, -1.0, 0.0, 1.0, 2.0]])
    fake = module(weight, bits=2, points=3)
    out = fake(weight)
    assert out.tolist() == [[-2, -2, 0, 0, 2]]
    out.mul(torch.tensor([1.0, 2, 3, 4, 5])).sum().backward()
    # 4 * (1 + 2), 4 * (3 + 4), 4 * 5, each times 1/3 of a point a shift and the factor
    # 9 / (sqrt(5 / 3) * 16)
    factor = 9 / ((5 / 3) ** 0.5 * 16) / 3
    assert fake.shifts.grad is not None
    assert fake.shifts.grad.tolist() == pytest.approx([12 * factor, 28 * factor, 20 * factor])


@given(
    st.integers(0, 1000), st.integers(1, 300), st.sampled_from([1, 2, 3, 16, 256]), st.booleans()
)
def test_the_table_finds_what_a_binary_search_finds(
    seed: int, weights: int, count: int, crowded: bool
) -> None:
    draw = np.random.default_rng(seed)
    spread = 1e-4 if crowded else 1.0  # many midpoints in one cell, some of them equal
    book = np.sort(draw.normal(0.5, spread, count).astype(np.float32))
    book[count // 2 :: 3] = book[count // 2]
    book.sort()
    values = draw.random(weights).astype(np.float32)
    middle = codebook.midpoints(book)
    values[: middle.size] = middle[: values.size]  # half-way, beyond [0, 1] too
    found = nearest(torch.from_numpy(values), torch.from_numpy(book))
    assert np.array_equal(found.numpy(), np.searchsorted(middle, values))


@pytest.mark.parametrize("granularity", GRANULARITIES, ids=str)
def test_the_gradient_of_each_point_is_that_of_finite_differences(granularity: Any) -> None:
    weight = drawn(6, 5, 3).double()
    quantizer = Differentiable(bits=3)
    start = quantizer.encode(weight.float().numpy(), granularity)
    codes = torch.from_numpy(numeric.encode(weight.float().numpy(), start)).reshape(-1)
    mix = drawn(6, 5, 3, seed=1).double()
    assert start.offset is not None
    scale, offset = (
        aligned(torch.from_numpy(a).double(), weight.shape, granularity)
        for a in (start.scale, start.offset)
    )

    def loss(values: Tensor) -> Tensor:
        return on_points(weight, values, codes, scale, offset).square().mul(mix).sum()

    values = torch.from_numpy(start.centroids).double().requires_grad_()
    found = torch.autograd.grad(loss(values), values)[0]
    for j in range(values.numel()):
        moved = torch.zeros_like(values)
        moved[j] = 1e-6
        slope = (loss(values + moved) - loss(values - moved)) / 2e-6
        assert found[j].item() == pytest.approx(slope.item(), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("weights", ["fixed", "joint"])
@pytest.mark.parametrize("granularity", GRANULARITIES, ids=str)
def test_the_module_does_what_the_numpy_form_does(granularity: Any, weights: str) -> None:
    weight = drawn(6, 5, 3).requires_grad_()
    fake = module(weight, granularity, bits=3, weights=weights)
    with torch.no_grad():
        fake.shifts.copy_(drawn(8, seed=2))
    out = fake(weight)
    encoding = fake.encoding(weight)
    values = weight.detach().numpy()
    assert np.allclose(out.detach().numpy(), numeric.round_trip(values, encoding), atol=1e-7)
    grad = drawn(6, 5, 3, seed=3)
    out.backward(grad)
    assert fake.shifts.grad is not None
    found = np.sort(fake.shifts.grad.numpy())
    expected = points.point_gradient(
        grad.numpy(), numeric.encode(values, encoding), encoding.scale, granularity, 8
    )
    wanted = np.sort(expected * fake.gradient_factor / 8)
    assert np.allclose(found, wanted, rtol=1e-4, atol=1e-5)
    if weights == "joint":
        assert weight.grad is not None
        assert torch.equal(weight.grad, grad)
    else:
        assert weight.grad is None


def test_points_that_cross_stay_in_order_and_keep_their_own_gradient() -> None:
    weight = drawn(400)
    fake = module(weight, bits=2)
    with torch.no_grad():
        fake.shifts.copy_(torch.tensor([3.6, 0, 0, 0]))  # the first is now the third
    fake(weight).sum().backward()
    book = fake.encoding(weight).centroids
    assert (np.diff(book) >= 0).all()
    third = np.bincount(numeric.encode(weight.numpy(), fake.encoding(weight)))[2]
    assert third > 0
    assert fake.shifts.grad is not None
    span = float(weight.max() - weight.min())
    assert fake.shifts.grad[0].item() == pytest.approx(
        third * span * fake.gradient_factor / 4, rel=1e-5
    )


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_training_the_points_lowers_the_error(optimizer: str) -> None:
    weight = drawn(64, 64).pow(3)
    fake = module(weight, PerBlock(size=256), bits=2)
    before = (fake(weight) - weight).square().mean().item()
    moves: Any = torch.optim.SGD if optimizer == "sgd" else torch.optim.AdamW
    step = moves(fake.parameters(), lr=0.02)
    for _ in range(200):
        step.zero_grad()
        (fake(weight) - weight).square().sum().backward()
        step.step()
    assert (fake(weight) - weight).square().mean().item() < 0.5 * before


def test_fixed_weights_are_scaled_again_when_somebody_writes_them() -> None:
    weight = torch.nn.Parameter(drawn(8, 4, 3, 3), requires_grad=False)
    fake = module(weight, PerChannel(), bits=3).requires_grad_(False)

    def agrees() -> bool:
        stored = numeric.round_trip(weight.contiguous().numpy(), fake.encoding(weight))
        return bool(np.allclose(fake(weight).numpy(), stored, atol=1e-6))

    assert agrees()
    weight.mul_(-2)
    assert agrees()
    weight.data = drawn(8, 4, 3, 3, seed=5).to(memory_format=torch.channels_last)
    assert agrees()
    assert not np.allclose(fake(weight * 3), fake(weight))


def test_the_layer_of_fixed_weights_is_kept_and_that_of_joint_ones_trains() -> None:
    for weights, trained in (("fixed", False), ("joint", True)):
        chosen = {"name": "differentiable", "bits": 4, "weights": weights}
        net: Any = aware(trained_looking("dense"), weights=chosen).module
        layer = net.head.layer
        assert layer.weight.requires_grad is trained
        assert layer.bias.requires_grad is trained
        assert net.head.weight_fake_quant.shifts.requires_grad


def test_a_student_freezes_to_the_values_it_trained_with() -> None:
    chosen = {"name": "differentiable", "bits": 3}
    student = aware(trained_looking("residual"), weights=chosen, granularity=PerBlock(size=32))
    net: Any = student.module
    with torch.no_grad():
        net.conv2.weight_fake_quant.shifts.add_(drawn(8))
    frozen = student.freeze()
    source = frozen.graph.get_submodule("conv2").weight
    stored = numeric.round_trip(source.detach().numpy(), frozen.weights["conv2"])
    used = net.conv2.weight_fake_quant(source)
    assert np.allclose(stored, used.detach().numpy(), atol=1e-6)


def test_points_need_the_bits_that_hold_them() -> None:
    assert Differentiable(bits=4).point_count == 16
    assert Differentiable(bits=4, points=9).point_count == 9
    grown = Differentiable(bits=4, weights="joint").with_points(17)
    assert (grown.bits, grown.points, grown.weights) == (5, 17, "joint")
    for wrong in ({"bits": 4, "points": 17}, {"bits": 4, "points": 8}, {"bits": 9}, {"bits": 0}):
        with pytest.raises(RecipeError, match="bits"):
            QUANTIZERS.build({"name": "differentiable", **wrong})


def test_an_empty_channel_and_a_constant_weight_stay_as_they_are() -> None:
    weight = drawn(4, 50)
    weight[1] = 0
    fake = module(weight, PerChannel(), bits=2)
    with torch.no_grad():
        fake.shifts.add_(0.3)
    assert fake(weight)[1].abs().max() < 1e-12
    same = torch.full((4, 9), 0.25)
    fake = module(same, PerBlock(size=12), bits=2)
    fake(same).square().sum().backward()
    assert fake.shifts.grad is not None
    assert torch.isfinite(fake.shifts.grad).all()
    torch.optim.SGD(fake.parameters(), lr=0.1).step()
    assert torch.allclose(fake(same), same, rtol=0, atol=1e-12)


def test_a_weight_that_is_not_a_number_is_refused_by_name() -> None:
    net: Any = trained_looking("dense")
    with torch.no_grad():
        net.head.weight[0, 0] = float("nan")
    with pytest.raises(DataError, match="The weight of the layer 'head' is not finite"):
        aware(net, weights={"name": "differentiable"})
