"""Differentiable quantization of a student of real digits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from torch import nn

from edgekd.core.progress import Silent
from edgekd.core.types import PerBlock, Scheme
from edgekd.distill.evaluation import evaluate
from edgekd.distill.settings import TrainSettings
from edgekd.distill.trainer import train
from edgekd.quantize.convert import QuantizationAware, simulate
from edgekd.quantize.settings import QuantizeSettings
from edgekd.students._build import build_seeded
from edgekd.students._contract import NetSpec
from edgekd.students.mlp import MLP
from edgekd.tasks._contract import Data
from edgekd.tasks.classification import Classification
from edgekd.tasks.sources.digits import Digits

TASK = Classification()
SCHEME = Scheme(activations="uint8", bias="float32")


@pytest.fixture(scope="module")
def digits() -> Data:
    return Digits().load(Path())


@pytest.fixture(scope="module")
def student(digits: Data, tmp_path_factory: pytest.TempPathFactory) -> nn.Module:
    net = build_seeded(MLP(widths=(32,)), NetSpec(digits.input_shape, 10), 0)
    fit(net, digits, tmp_path_factory.mktemp("float"), epochs=15)
    return net


def fit(net: nn.Module, digits: Data, folder: Path, epochs: int) -> None:
    settings = TrainSettings(epochs=epochs, batch_size=32, learning_rate=0.02)
    train(
        net,
        digits,
        TASK,
        settings=settings,
        seed=0,
        folder=folder,
        progress=Silent(),
        title="points",
    )


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("weights", ["fixed", "joint"])
def test_training_improves_on_the_post_training_start(
    tmp_path: Path, digits: Data, student: nn.Module, bits: int, weights: str
) -> None:
    settings = QuantizeSettings.model_validate(
        {
            "weights": {"name": "differentiable", "bits": bits, "weights": weights},
            "granularity": PerBlock(size=256),
            "activation_bits": "float",
        }
    )
    samples = digits.train.batch(np.arange(64))
    aware = QuantizationAware(student, settings, SCHEME, samples, learned=False, seed=0)
    before = [evaluate(simulate(aware.freeze()), s, TASK) for s in (digits.train, digits.test)]
    fit(aware.module, digits, tmp_path, epochs=4)
    after = [evaluate(simulate(aware.freeze()), s, TASK) for s in (digits.train, digits.test)]
    assert after[0].loss < before[0].loss
    # 4 bits start where the float student is: 359 test samples cannot tell them apart
    if bits == 2:
        assert after[1].score > before[1].score
        assert after[1].loss < before[1].loss
