from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import nn

from edgekd.core.config import validate
from edgekd.core.types import Affine, PerTensor, Scheme
from edgekd.quantize.convert import QuantizationAware, QuantizedLayer
from edgekd.quantize.oscillation import Oscillation, shares
from edgekd.quantize.settings import FreezeSettings, QuantizeSettings

SETTINGS = FreezeSettings(threshold=0.1, momentum=0.1, start=0.5)
GRID = Affine(3, True, PerTensor(), np.array(1.0, np.float32), np.array(0, np.int32), narrow=True)


def watched(weights: list[list[float]], start_step: int = 0) -> tuple[Oscillation, torch.Tensor]:
    """One weight vector per step."""
    weight = torch.tensor(weights[0])
    watch = Oscillation(weight, SETTINGS, start_step=start_step)
    for values in weights:
        weight.copy_(torch.tensor(values))
        watch.hold(weight, GRID)
        watch.see(weight, GRID)
    return watch, weight


def test_only_changes_against_the_last_one_are_flips() -> None:
    # still; moving on for good; to and fro
    steps = [[0.1, float(i // 4), 0.4 + 0.2 * (i % 2)] for i in range(12)]
    watch, _ = watched(steps, start_step=1000)
    assert watch.frequency[:2].tolist() == [0.0, 0.0]
    assert watch.frequency[2] > 0.5
    assert watch.counts() == (3, 1, 0)


def test_a_flipping_weight_is_frozen_at_its_average_code_and_stays() -> None:
    # twice at 1, once at 0, over and over: rounded, the average is 1
    steps = [[0.6 if i % 3 else 0.4] for i in range(40)]
    watch, weight = watched(steps, start_step=20)
    assert watch.counts() == (1, 0, 1)
    weight.fill_(-2.9)  # wherever the optimizer takes it
    watch.hold(weight, GRID)
    assert weight.tolist() == [1.0]
    finer = Affine(3, True, PerTensor(), np.array(0.5, np.float32), GRID.zero_point, narrow=True)
    watch.hold(weight, finer)  # the code stands still, not the value
    assert weight.tolist() == [0.5]


def test_nothing_is_frozen_before_the_start() -> None:
    steps = [[0.6 if i % 2 else 0.4] for i in range(21)]
    assert watched(steps[:20], start_step=20)[0].counts() == (1, 1, 0)
    assert watched(steps, start_step=20)[0].counts() == (1, 0, 1)


def aware(**fields: Any) -> QuantizationAware:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 4)).eval()
    settings = validate(
        QuantizeSettings,
        {"weights": {"name": "lsq", "bits": 2}, "freeze_oscillating": {}, **fields},
        source="the recipe",
    )
    inputs = np.random.default_rng(0).normal(size=(64, 1, 4, 4)).astype(np.float32)
    scheme = Scheme(activations="uint8", bias="float32")
    return QuantizationAware(net, settings, scheme, inputs, learned=True, seed=0, steps=60)


def steps(found: QuantizationAware, count: int, optimizer: torch.optim.Optimizer) -> None:
    inputs = torch.randn(32, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(32) % 4
    found.module.train()
    for _ in range(count):
        optimizer.zero_grad()
        nn.functional.cross_entropy(found.module(inputs), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def test_frozen_codes_are_the_ones_delivered() -> None:
    found = aware(freeze_oscillating={"threshold": 0.001, "momentum": 0.2, "start": 0.3})
    steps(found, 60, torch.optim.SGD(found.module.parameters(), 0.5))
    said = shares(found.module)
    assert 0 < said["frozen"] < 1
    frozen = {
        name: (m.oscillation.frozen.clone(), m.oscillation.average.round())
        for name, m in found.module.named_modules()
        if isinstance(m, QuantizedLayer) and m.oscillation is not None
    }
    student = found.freeze()
    for name, (mask, codes) in frozen.items():
        scale = torch.from_numpy(np.asarray(student.weights[name].scale))
        real = student.graph.get_submodule(name).weight / scale[:, None]
        torch.testing.assert_close(real[mask], codes[mask])


def test_nothing_is_frozen_in_the_first_part_of_a_training() -> None:
    eager = {"threshold": 0.001, "momentum": 0.2, "start": 0.6}  # of 60 steps
    found = aware(freeze_oscillating=eager)
    optimizer = torch.optim.SGD(found.module.parameters(), 0.5)
    steps(found, 36, optimizer)
    assert shares(found.module)["frozen"] == 0
    steps(found, 24, optimizer)
    assert shares(found.module)["frozen"] > 0


def test_continuing_from_the_state_is_continuing() -> None:
    whole, cut = aware(), aware()
    steps(whole, 30, torch.optim.SGD(whole.module.parameters(), 0.5))
    steps(cut, 15, torch.optim.SGD(cut.module.parameters(), 0.5))
    again = aware()
    again.module.load_state_dict(copy.deepcopy(cut.module.state_dict()))
    steps(again, 15, torch.optim.SGD(again.module.parameters(), 0.5))
    for (name, a), b in zip(
        whole.module.state_dict().items(), again.module.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b), name


def test_nobody_looks_where_it_is_not_asked_for() -> None:
    assert shares(aware(freeze_oscillating=None).module) == {}
