"""edgekd's own hot paths under pytest-benchmark.

    pytest bench/test_hot_paths.py                          # a table
    pytest bench/test_hot_paths.py --benchmark-autosave     # kept, to compare with the next
    pytest bench/test_hot_paths.py --benchmark-compare

Absolute times mean little on a shared machine: compare two runs of one machine, and their minima.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from edgekd.core.ledger import Ledger
from edgekd.core.types import Affine, Codebook, PerBlock, PerChannel
from edgekd.numerics import encoding
from edgekd.numerics.ranges import least_squares_scale
from edgekd.numerics.statistics import certified_percentile
from edgekd.profile.agent.timing import Series, timed
from edgekd.quantize.fake_quant import fake_quant
from edgekd.quantize.quantizers._contract import QUANTIZERS

MILLION = 1_000_000
WEIGHT = np.random.default_rng(0).normal(size=(250, 4000)).astype(np.float32)
BLOCKS = PerBlock(size=256)


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_encode_a_million_weights_per_channel(benchmark) -> None:
    scale = np.full(250, 0.02, np.float32)
    grid = Affine(8, True, PerChannel(), scale, np.zeros(250, np.int32), narrow=True)
    codes = benchmark(encoding.encode, WEIGHT, grid)
    assert codes.shape == WEIGHT.shape


def test_encode_a_million_weights_by_codebook(benchmark) -> None:
    groups = -(-MILLION // 256)
    points = np.linspace(-1, 1, 16, dtype=np.float32)
    book = Codebook(4, BLOCKS, points, np.ones(groups, np.float32))
    assert benchmark(encoding.encode, WEIGHT, book).max() == 15


def test_search_the_scales_of_a_hundred_thousand_weights(benchmark) -> None:
    found = benchmark(least_squares_scale, WEIGHT[:25], PerChannel(), bits=4)
    assert found.shape == (25,)


def test_activation_fake_quant_forward_and_backward(benchmark) -> None:
    value = torch.randn(64, 32, 28, 28, requires_grad=True)
    scale = torch.tensor(0.05, requires_grad=True)

    def step() -> None:
        fake_quant(value, scale, torch.zeros(()), 0, 255).sum().backward()

    benchmark(step)
    assert scale.grad is not None


@pytest.mark.parametrize("name", QUANTIZERS.names())
def test_weight_fake_quant_of_a_million_weights(benchmark, name: str) -> None:
    weight = torch.from_numpy(WEIGHT.copy()).requires_grad_()
    fake = QUANTIZERS.build(name).fake_quant(weight, BLOCKS)

    def step() -> None:
        fake(weight).sum().backward()

    benchmark(step)
    learned = [weight] if getattr(fake, "trains_layer", True) else list(fake.parameters())
    assert all(tensor.grad is not None for tensor in learned)


def test_certified_percentile_of_a_hundred_thousand_samples(benchmark) -> None:
    samples = np.random.default_rng(0).gamma(4, size=100_000)
    assert benchmark(certified_percentile, samples, 99) > np.percentile(samples, 99)


def test_the_clock_around_an_inference(benchmark) -> None:
    series = Series([lambda: None])
    assert len(benchmark(timed, series, 1000)) == 1000


def test_one_line_of_the_ledger(benchmark, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    benchmark.pedantic(ledger.append, args=("done",), rounds=50)


@pytest.mark.parametrize("weights", ["fixed", "joint"])
@pytest.mark.parametrize("size", [256, 3907], ids=["blocks of 256", "256 blocks"])
def test_differentiable_quantization_forward_and_backward(benchmark, weights, size) -> None:
    weight = torch.nn.Parameter(torch.from_numpy(WEIGHT), requires_grad=weights == "joint")
    settings = {"name": "differentiable", "bits": 4, "weights": weights}
    fake = QUANTIZERS.build(settings).fake_quant(weight, PerBlock(size=size))
    grad = torch.randn(WEIGHT.shape)

    def step() -> None:
        with torch.no_grad():
            fake.shifts.add_(1e-4)  # every turn assigns anew
        fake(weight).backward(grad)

    benchmark(step)
    assert fake.shifts.grad.abs().sum() > 0
