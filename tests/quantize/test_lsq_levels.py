from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgekd.core.errors import RecipeError
from edgekd.core.types import PerBlock, PerChannel, PerTensor
from edgekd.numerics.encoding import encode, round_trip
from edgekd.quantize.quantizers._contract import QUANTIZERS

LEVELS = ("narrow", "full", "mid_rise", "offset")
_WEIGHTS = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=3, max_side=7),
    elements=st.floats(-100, 100, width=32, allow_subnormal=False),
)
_GROUPS = st.sampled_from([PerTensor(), PerChannel(axis=1), PerBlock(size=4)])


def lsq(levels: str, bits: int = 2, **settings: Any) -> Any:
    return QUANTIZERS.build({"name": "lsq", "levels": levels, "bits": bits, **settings})


def fixed(levels: str, weight: torch.Tensor) -> Any:
    """Two bits, scale 1, offset -1 where it is learned, plain gradients."""
    fake = lsq(levels).fake_quant(weight, PerTensor())
    fake.start_scale.fill_(1.0)
    if levels == "offset":
        fake.start_offset.fill_(-1.0)
    fake.gradient_factor = 1.0
    return fake


@pytest.mark.parametrize(
    ("levels", "points", "codes"),
    [
        ("narrow", [-1.0, 0.0, 1.0], [-1, 0, 1]),
        ("full", [-2.0, -1.0, 0.0, 1.0], [-2, -1, 0, 1]),
        ("mid_rise", [-1.5, -0.5, 0.5, 1.5], [-2, -1, 0, 1]),
        ("offset", [-1.0, 0.0, 1.0, 2.0], [0, 1, 2, 3]),
    ],
)
def test_the_levels_of_two_bits(levels: str, points: list[float], codes: list[int]) -> None:
    weight = torch.linspace(-9, 9, 500)
    fake = fixed(levels, weight)
    assert fake(weight).unique().tolist() == points
    assert np.unique(encode(weight.numpy(), fake.encoding(weight))).tolist() == codes


@pytest.mark.parametrize("levels", LEVELS)
def test_gradients_by_hand(levels: str) -> None:
    # 0.4 lies inside: its scale gradient is level - 0.4; -9 and 9 were cut: theirs are the levels
    weight = torch.tensor([[0.4, -9.0, 9.0]], requires_grad=True)
    fake = fixed(levels, weight)
    fake(weight).mul(torch.tensor([1.0, 2.0, 4.0])).sum().backward()
    near = {"mid_rise": 0.5}.get(levels, 0.0)
    low, high = {"narrow": (-1, 1), "full": (-2, 1), "mid_rise": (-1.5, 1.5), "offset": (0, 3)}[
        levels
    ]
    wanted = near - 0.4 + 2 * low + 4 * high
    if levels == "offset":  # codes 1, 0, 3, counted from -1
        wanted = 1 - 1.4 + 2 * low + 4 * high
        assert fake.offset_steps.grad.item() == pytest.approx(6.0)  # only what was cut moves along
    assert fake.log_gain.grad.item() == pytest.approx(wanted)
    assert weight.grad is not None
    assert weight.grad.tolist() == [[1.0, 0.0, 0.0]]


@pytest.mark.parametrize("levels", LEVELS)
def test_gradients_agree_with_finite_differences(levels: str) -> None:
    weight = torch.randn(2, 30, generator=torch.Generator().manual_seed(0))
    fake = lsq(levels, 3).fake_quant(weight, PerChannel()).double()
    fake.gradient_factor = 1.0
    values, mix = weight.double(), torch.linspace(-1, 1, 60).view(2, 30).double()
    (fake(values) * mix).sum().backward()
    inside = (fake(values) - values).abs() <= fake.step_size().detach()[:, None] * 0.5

    def difference(parameter: torch.Tensor, row: int) -> float:
        step, kept = 1e-7, parameter.detach().clone()
        with torch.no_grad():
            base = (fake(values) * mix).sum()
            parameter[row] += step
            change = ((fake(values) * mix).sum() - base) / step
            parameter.copy_(kept)
        return float(change)

    for row in range(2):
        # a rounded value stands on its level; straight-through takes its own share away again
        offset = 0.0 if levels != "offset" else fake.start_offset[row]
        through = ((values[row] - offset) * mix[row])[inside[row]].sum()
        found = fake.log_gain.grad[row].item()
        assert found == pytest.approx(difference(fake.log_gain, row) - float(through), abs=1e-5)
        if levels == "offset":
            through = (fake.start_scale[row] * mix[row])[inside[row]].sum()
            found = fake.offset_steps.grad[row].item()
            wanted = difference(fake.offset_steps, row) - float(through)
            assert found == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("granularity", [PerTensor(), PerChannel(), PerBlock(size=20)])
def test_a_step_of_sgd_moves_a_scale_as_the_paper_says(
    granularity: PerTensor | PerChannel | PerBlock,
) -> None:
    # equal rows have equal scales: their root mean square is each of them
    weight = torch.randn(1, 20, generator=torch.Generator().manual_seed(0)).repeat(4, 1)
    fake = lsq("narrow", 3).fake_quant(weight, granularity).double()
    before = fake.step_size().detach().reshape(-1, 1)
    groups = len(before)
    values = weight.double().view(groups, -1)
    mix = torch.linspace(-1, 2, weight.numel()).double().view(groups, -1)
    (fake(weight.double()).view(groups, -1) * mix).sum().backward()
    torch.optim.SGD(fake.parameters(), lr=1e-4).step()
    # Esser et al. 2020, eq. 3, times 1 / sqrt(weights per scale * largest code), section 2.2
    codes = (values / before).round().clamp(-3, 3)
    error = codes - values / before
    slope = (mix * torch.where(error.abs() <= 0.5, error, codes)).sum(1)
    wanted = -1e-4 * slope / (values.shape[1] * 3) ** 0.5
    moved = fake.step_size().detach().reshape(-1) - before.reshape(-1)
    assert moved.tolist() == pytest.approx(wanted.tolist(), rel=1e-2)


@given(_WEIGHTS, _GROUPS, st.integers(1, 8), st.sampled_from(LEVELS))
def test_training_computes_what_is_stored(
    weight: np.ndarray, granularity: PerTensor | PerChannel | PerBlock, bits: int, levels: str
) -> None:
    if bits == 1 and levels in ("narrow", "full"):
        return
    tensor = torch.from_numpy(weight)
    fake = lsq(levels, bits).fake_quant(tensor, granularity)
    with torch.no_grad():
        fake.log_gain += 0.1
    stored = round_trip(weight, fake.encoding(tensor))
    assert np.array_equal(fake(tensor).detach().numpy(), stored)
    assert np.array_equal(round_trip(stored, fake.encoding(tensor)), stored)


@pytest.mark.parametrize("levels", LEVELS)
def test_what_was_trained_is_resumed_to_the_bit(levels: str) -> None:
    weight = torch.randn(4, 20, generator=torch.Generator().manual_seed(0))
    fake = lsq(levels, 4).fake_quant(weight, PerBlock(size=16))
    optimizer = torch.optim.AdamW(fake.parameters(), lr=0.01)
    for _ in range(5):
        (fake(weight) - weight).square().sum().backward()
        optimizer.step()
    again = lsq(levels, 4).fake_quant(weight, PerBlock(size=16))
    assert not torch.equal(again(weight), fake(weight))
    again.load_state_dict(fake.state_dict())
    assert torch.equal(again(weight), fake(weight))


def test_a_learned_offset_finds_a_lopsided_weight() -> None:
    weight = torch.rand(2, 400, generator=torch.Generator().manual_seed(0)) + 3
    fake = lsq("offset", 2, lr_scale=2.0).fake_quant(weight, PerChannel())
    assert all(p.lr_scale == 2.0 for p in fake.parameters())
    with torch.no_grad():
        fake.start_offset -= 0.2
    first = (fake(weight) - weight).square().mean().item()
    optimizer = torch.optim.AdamW(fake.parameters(), lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        (fake(weight) - weight).square().sum().backward()
        optimizer.step()
    # four even cells of a quarter each: 1 / (12 * 16)
    assert (fake(weight) - weight).square().mean().item() == pytest.approx(1 / 192, rel=0.1)
    assert first > 2.5 / 192


def test_an_empty_channel_stays_silent_where_there_is_no_zero() -> None:
    weight = np.random.default_rng(0).normal(size=(4, 20)).astype(np.float32)
    weight[1] = 0
    encoding = lsq("mid_rise").encode(weight, PerChannel())
    assert encoding.scale.min() > 0
    assert np.abs(round_trip(weight, encoding)[1]).max() < 1e-11
    nothing = torch.zeros(2, 8, requires_grad=True)
    fake = lsq("mid_rise").fake_quant(nothing, PerChannel())
    fake(nothing).sum().backward()
    assert fake.log_gain.grad.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"bits": 1}, "levels: one bit needs mid_rise or offset, got 'narrow'"),
        ({"bits": 1, "levels": "full"}, "levels: one bit needs mid_rise or offset, got 'full'"),
        ({"levels": "offset", "start": "mean_abs"}, "start: levels: offset can only start at mse"),
        ({"levels": "half"}, "levels: Input should be"),
    ],
)
def test_levels_that_cannot_be(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(RecipeError, match=text):
        QUANTIZERS.build({"name": "lsq", **settings})
