"""The trainer on networks it did not build: traced graphs with learned quantization scales."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from edgekd.core.progress import Silent
from edgekd.core.types import Scheme
from edgekd.distill.precision import choose_precision
from edgekd.distill.settings import TrainSettings
from edgekd.distill.state import model_sha256
from edgekd.distill.trainer import train
from edgekd.quantize.convert import QuantizationAware
from edgekd.quantize.settings import QuantizeSettings
from edgekd.students._build import build_seeded
from edgekd.students._contract import NetSpec
from edgekd.students.resnet import ResNet
from edgekd.tasks._contract import Data
from edgekd.tasks.classification import Classification

_SETTINGS = TrainSettings(
    epochs=3, batch_size=16, learning_rate=0.02, weight_decay=0.0, checkpoint_every_s=1e-9
)


def _aware(student: nn.Module, samples: Any, **fields: Any) -> QuantizationAware:
    scheme = Scheme(activations="uint8", weight_granularity="per_channel", bias="int32")
    settings = QuantizeSettings(**fields)
    return QuantizationAware(student, settings, scheme, samples, learned=True, seed=0)


def _module(data: Data, **fields: Any) -> nn.Module:
    family = ResNet(widths=(4, 8), depths=(1, 1))
    student = build_seeded(family, NetSpec(data.input_shape, 4), 0).eval()
    return _aware(student, data.train.batch(np.arange(32)), **fields).module


class _Stops(Silent):
    def __init__(self, steps: int) -> None:
        self.left = steps

    def bar(self, title: str, total: int, done: int = 0) -> Any:
        return self

    def __enter__(self) -> _Stops:
        return self

    def __exit__(self, *exc: object) -> None:
        return None

    def advance(self, steps: int = 1, note: str = "") -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def _train(
    module: nn.Module,
    data: Data,
    folder: Path,
    progress: Any = None,
    settings: TrainSettings = _SETTINGS,
) -> Any:
    return train(
        module,
        data,
        Classification(),
        settings=settings,
        seed=0,
        folder=folder,
        progress=progress or Silent(),
        title="quantized",
    )


def test_scales_are_trained_and_a_killed_run_ends_with_the_same_bits(
    tmp_path: Path, data: Data
) -> None:
    whole = _module(data)
    first = model_sha256(whole)
    gains = [name for name, _ in whole.named_parameters() if name.endswith("log_gain")]
    result = _train(whole, data, tmp_path / "whole")
    assert result.history[-1].loss < result.history[0].loss
    assert gains
    assert all(whole.get_parameter(name).item() != 0 for name in gains)
    with pytest.raises(KeyboardInterrupt):
        _train(_module(data), data, tmp_path / "cut", _Stops(8))
    cut = _module(data)
    assert model_sha256(cut) == first
    assert _train(cut, data, tmp_path / "cut").resumed_from == 7
    assert model_sha256(cut) == model_sha256(whole)


@pytest.mark.parametrize(
    "weights",
    # a search falls on either side of the cut at step 7
    [
        {"name": "mse", "bits": 4, "refresh_steps": 5},
        {"name": "lsq", "bits": 4},
        {"name": "differentiable", "bits": 2},
        {"name": "differentiable", "bits": 2, "weights": "joint"},
    ],
    ids=lambda w: f"{w['name']}-{w.get('weights', '')}",
)
def test_the_state_of_a_quantizer_resumes_with_the_same_bits(
    tmp_path: Path, data: Data, weights: dict[str, Any]
) -> None:
    fields = {"weights": weights, "keep_float": ("first",)}
    whole = _module(data, **fields)
    before = {k: v.clone() for k, v in whole.state_dict().items() if "weight_fake_quant" in k}
    _train(whole, data, tmp_path / "whole")
    after = whole.state_dict()
    moved = {"mse": "scale", "lsq": "log_gain", "differentiable": "shifts"}[weights["name"]]
    states = [k for k in before if k.rpartition(".")[2] == moved]
    assert states
    assert any((after[k] != before[k]).any() for k in states)
    with pytest.raises(KeyboardInterrupt):
        _train(_module(data, **fields), data, tmp_path / "cut", _Stops(8))
    cut = _module(data, **fields)
    assert _train(cut, data, tmp_path / "cut").resumed_from == 7
    assert model_sha256(cut) == model_sha256(whole)


def test_fixed_weights_and_biases_end_as_they_began(tmp_path: Path, data: Data) -> None:
    module = _module(data, weights={"name": "differentiable", "bits": 2})
    before = {k: v.clone() for k, v in module.state_dict().items()}
    decay = _SETTINGS.model_copy(update={"weight_decay": 0.1})
    _train(module, data, tmp_path, settings=decay)
    moved = {k for k, v in module.state_dict().items() if not v.equal(before[k])}
    points = {k for k in before if k.endswith(".shifts")}
    grids = {k for k in before if k.endswith("_grid.log_gain")}
    assert points
    assert moved == points | grids


def test_training_through_the_rounding_is_float32() -> None:
    shape, flags = (1, 28, 28), frozenset({"avx512_bf16"})
    student = build_seeded(ResNet(widths=(16, 32), depths=(1, 1)), NetSpec(shape, 4), 0).eval()
    samples = np.random.default_rng(0).normal(size=(8, *shape)).astype(np.float32)
    quantized = _aware(student, samples).module
    assert choose_precision(TrainSettings(), student, shape, flags) == "bfloat16"
    assert choose_precision(TrainSettings(), quantized, shape, flags) == "float32"
