"""Quantizers with points that are no even grid, or very few."""

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
from edgekd.numerics.powers import additive_powers
from edgekd.numerics.thresholds import binary_scale, ternary_scale
from edgekd.quantize.fake_codebook import fake_codebook
from edgekd.quantize.quantizers._contract import QUANTIZERS

_WEIGHTS = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=3, max_side=7),
    # a group below SMALLEST_RANGE counts as empty, which multiplying its weights could undo
    elements=st.just(0.0) | st.floats(2**-20, 99, width=32) | st.floats(-99, -(2**-20), width=32),
)
_GROUPS = st.sampled_from([PerTensor(), PerChannel(axis=0), PerBlock(size=4)])
GRANULARITY = PerTensor | PerChannel | PerBlock
_KINDS = st.sampled_from(
    [
        {"name": "apot", "bits": 3},
        {"name": "apot", "bits": 8},
        {"name": "ternary"},
        {"name": "ternary", "scale": "learned"},
        {"name": "binary"},
    ]
)


def build(name: str, **settings: Any) -> Any:
    return QUANTIZERS.build({"name": name, **settings})


@given(_WEIGHTS, _GROUPS, _KINDS)
def test_training_computes_the_reference(
    weight: np.ndarray, granularity: GRANULARITY, settings: dict[str, Any]
) -> None:
    quantizer = QUANTIZERS.build(settings)
    tensor = torch.from_numpy(weight)
    fake: Any = quantizer.fake_quant(tensor, granularity)
    reference, found = quantizer.encode(weight, granularity), fake.encoding(tensor)
    # means are summed in float64 in another order
    assert np.allclose(found.scale, reference.scale, rtol=1e-6)
    stored = round_trip(weight, found)
    assert np.array_equal(fake(tensor).detach().numpy(), stored)
    assert np.array_equal(round_trip(stored, found), stored)
    codes = encode(weight * 4, quantizer.encode(weight * 4, granularity))
    assert np.array_equal(codes, encode(weight, reference))


def test_four_bits_of_additive_powers_by_hand() -> None:
    # {0, 1/2, 1/4, 1/16} + {0, 1/8}, over their largest sum 5/8
    found = additive_powers(4).tolist()
    half = [0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0]
    assert found == pytest.approx([-x for x in reversed(half)] + [0.0, *half])


def test_five_bits_of_additive_powers_by_hand() -> None:
    # {0, 1, 1/4, 1/16} + {0, 1/2, 1/8, 1/32}, in thirty-seconds, over 48
    sums = sorted(a + b for a in (0, 32, 8, 2) for b in (0, 16, 4, 1))
    assert additive_powers(5)[15:].tolist() == pytest.approx([x / 48 for x in sums])


@pytest.mark.parametrize("bits", range(2, 9))
def test_every_code_but_one_is_used(bits: int) -> None:
    points = additive_powers(bits)
    assert len(points) == 2**bits - 1
    assert (np.diff(points) > 0).all()
    assert np.array_equal(points, -points[::-1])


def test_the_clip_of_additive_powers_fits_by_hand() -> None:
    # 0.5, 1, 2 are a quarter, a half and the whole of 2: no error; an empty channel has the mean
    weight = np.float32([[0.5, 1, -2, 0], [0, 0, 0, 0], [4, 4, 4, 4]])
    encoding = build("apot", bits=3).encode(weight, PerChannel())
    assert encoding.scale.tolist() == pytest.approx([2.0, 3.0, 4.0])
    assert np.array_equal(round_trip(weight, encoding), weight)
    assert encode(weight, encoding)[0].tolist() == [4, 5, 0, 3]


def test_the_gradients_of_a_clipping_range_by_hand() -> None:
    # scale 2: 1.2 is 0.6 and goes to 0.5; -9 is cut
    value = torch.tensor([1.2, -9.0], requires_grad=True)
    scale = torch.tensor(2.0, requires_grad=True)
    points = torch.from_numpy(additive_powers(3))
    fake_codebook(value, scale, points).mul(torch.tensor([1.0, 10.0])).sum().backward()
    assert value.grad is not None
    assert scale.grad is not None
    assert value.grad.tolist() == [1.0, 0.0]
    assert scale.grad.item() == pytest.approx((0.5 - 0.6) - 10)


def test_a_clipping_range_has_the_gradient_of_finite_differences() -> None:
    value = torch.randn(3, 40, generator=torch.Generator().manual_seed(0)).double()
    mix = torch.linspace(-1, 1, 120).view(3, 40).double()
    points = torch.from_numpy(additive_powers(4)).double()
    scale = torch.tensor([[0.5], [1.0], [3.0]], dtype=torch.float64, requires_grad=True)
    (fake_codebook(value, scale, points) * mix).sum().backward()
    assert scale.grad is not None
    for row in range(3):
        moved = scale.detach().clone()
        moved[row] += 1e-7
        change = fake_codebook(value, moved, points) - fake_codebook(value, scale, points)
        steps = value[row] / scale.detach()[row]
        through = (steps * mix[row])[steps.abs() <= 1].sum()  # straight-through's own share
        wanted = (change * mix).sum().item() / 1e-7 - through.item()
        assert scale.grad[row].item() == pytest.approx(wanted, abs=1e-5)


def test_ternary_by_hand() -> None:
    # mean |w| is 1.55, the threshold 1.085: 2 and 4 are kept, their mean is the scale. 1.6 lies
    # below the scale's half of 3 and above the threshold: with it the scale is 7.6 / 3
    weight = np.float32([[0.1, -0.1, 2, -4], [0.1, 1.6, 2, -4]])
    encoding = build("ternary").encode(weight, PerChannel())
    assert encoding.scale.tolist() == pytest.approx([3.0, 7.6 / 3])
    assert (encoding.bits, encoding.narrow, encoding.signed) == (2, True, True)
    assert encode(weight, encoding).tolist() == [[0, 0, 1, -1], [0, 1, 1, -1]]


def test_ternary_is_near_the_least_error_on_normal_weights() -> None:
    weight = np.random.default_rng(0).normal(size=(4, 5000)).astype(np.float32)
    best = QUANTIZERS.build({"name": "mse", "bits": 2}).encode(weight, PerChannel())
    found = build("ternary").encode(weight, PerChannel())
    errors = [float(np.square(round_trip(weight, e) - weight).mean()) for e in (best, found)]
    assert errors[0] < errors[1] < 1.03 * errors[0]


def test_a_learned_ternary_scale_trains() -> None:
    weight = torch.randn(4, 50, generator=torch.Generator().manual_seed(0))
    fake = build("ternary", scale="learned", lr_scale=3.0).fake_quant(weight, PerChannel())
    assert fake.log_gain.lr_scale == 3.0
    fake(weight).square().sum().backward()
    assert (fake.log_gain.grad != 0).all()


def test_binary_by_hand() -> None:
    # a short last block: its mean is that of its one weight
    weight = np.float32([[1.0, -3.0, 0.5], [0.0, 2.0, 0.0], [-5.0, 7.0, 0.0]])
    blocks = PerBlock(size=4)
    encoding = build("binary").encode(weight, blocks)
    assert encoding.scale.tolist() == pytest.approx([4.5 / 4, 14 / 4, 1e-12])
    # 0 is no more than 0: it goes to the lower point
    assert encode(weight, encoding).reshape(-1).tolist() == [1, 0, 1, 0, 1, 0, 0, 1, 0]


def test_the_gradient_of_binary_weights_stops_at_the_cut() -> None:
    weight = torch.tensor([[0.2, -0.9, 1.1, -3.0]], requires_grad=True)
    build("binary").fake_quant(weight, PerTensor())(weight).sum().backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [[1.0, 1.0, 0.0, 0.0]]


@given(_WEIGHTS, _GROUPS, st.floats(0.5, 2))
def test_the_mean_is_the_best_binary_scale(
    weight: np.ndarray, granularity: GRANULARITY, factor: float
) -> None:
    encoding = build("binary").encode(weight, granularity)
    other = type(encoding)(
        1, granularity, encoding.centroids, (encoding.scale * factor).astype(np.float32)
    )
    errors = [
        float(np.square((round_trip(weight, e) - weight).astype(np.float64)).sum())
        for e in (encoding, other)
    ]
    assert errors[0] <= errors[1] * (1 + 1e-5) + 1e-12


def test_empty_groups() -> None:
    weight = np.zeros((2, 8), np.float32)
    assert binary_scale(weight, PerChannel()).tolist() == pytest.approx([1e-12] * 2)
    assert ternary_scale(weight, PerChannel()).tolist() == [1.0, 1.0]
    assert build("apot").encode(weight, PerChannel()).scale.tolist() == [1.0, 1.0]


@pytest.mark.parametrize(("name", "bits"), [("apot", 1), ("ternary", 4), ("binary", 2)])
def test_other_widths_are_refused(name: str, bits: int) -> None:
    with pytest.raises(RecipeError, match=rf"bits: Input should be .* got {bits}"):
        build(name, bits=bits)
