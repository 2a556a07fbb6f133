from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgekd.core.errors import DataError, RecipeError
from edgekd.core.progress import Silent
from edgekd.distill.cache import TeacherOutputs
from edgekd.distill.evaluation import evaluate
from edgekd.distill.feed import ResidentSplit
from edgekd.distill.objectives.feature_mse import FeatureMSE
from edgekd.distill.objectives.hard_label import HardLabel
from edgekd.distill.objectives.logits_kl import LogitsKL
from edgekd.distill.settings import Augment, TrainSettings
from edgekd.distill.trainer import EpochRecord, TrainResult, train
from edgekd.tasks._contract import Data
from edgekd.tasks.classification import Classification

_QUICK = TrainSettings(epochs=4, batch_size=16, learning_rate=0.05, warmup_epochs=0.5)
_CONV_ONLY = 4 * 9


def _net(seed: int = 0, width: int = 4) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(width * 9, 4),
    )


def _train(
    net: nn.Module, data: Data, folder: Path, settings: TrainSettings = _QUICK, **more: Any
) -> TrainResult:
    fields: dict[str, Any] = {"seed": 0, "progress": Silent(), "title": "student", **more}
    return train(net, data, Classification(), settings=settings, folder=folder, **fields)


def _state(net: nn.Module) -> dict[str, Tensor]:
    return {name: t.clone() for name, t in net.state_dict().items()}


def _same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(t, b[name]) for name, t in a.items())


def test_it_learns(tmp_path: Path, data: Data) -> None:
    net = _net()
    result = _train(net, data, tmp_path, _QUICK.model_copy(update={"epochs": 10}))
    assert len(result.history) == 10
    assert result.steps == 10 * math.ceil(90 / 16)
    assert result.history[-1].loss < result.history[0].loss / 2
    assert result.history[-1].validation_score > 0.9  # chance is 0.25
    assert result.resumed_from is None
    assert not net.training
    best = max(result.history, key=lambda r: r.validation_score)
    assert result.history[result.best_epoch].validation_score == best.validation_score


def test_the_record_is_that_of_the_final_weights(tmp_path: Path, data: Data) -> None:
    net = _net()
    result = _train(net, data, tmp_path)
    found = evaluate(net, data.validation, Classification())
    assert result.history[-1].validation_score == found.score
    # memory layouts differ: other order of sums
    assert result.history[-1].validation_loss == pytest.approx(found.loss, rel=1e-5)


def test_the_same_call_gives_the_same_bits_and_another_seed_others(
    tmp_path: Path, data: Data
) -> None:
    nets = [_net() for _ in range(3)]
    for i, (net, seed) in enumerate(zip(nets, (0, 0, 1), strict=True)):
        _train(net, data, tmp_path / str(i), seed=seed)
    assert _same(_state(nets[0]), _state(nets[1]))
    assert not _same(_state(nets[0]), _state(nets[2]))


def test_the_global_generator_is_left_alone(tmp_path: Path, data: Data) -> None:
    before = torch.get_rng_state()
    net = _net()
    torch.set_rng_state(before)
    _train(net, data, tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_teacher_pulls_the_student_to_its_outputs(
    tmp_path: Path, data: Data, teacher: Any
) -> None:
    stored = TeacherOutputs.open(
        tmp_path / "t", teacher, data, augment=Augment(), epochs=20, progress=Silent()
    )
    settings = _QUICK.model_copy(update={"epochs": 20})
    distances = {}
    for name, objective in (("teacher", LogitsKL()), ("labels", HardLabel())):
        net = _net()
        _train(net, data, tmp_path / name, settings, objectives=(objective,), teacher=stored)
        distances[name] = np.abs(_logits(net, data) - _logits(teacher.net, data)).mean()
    # the teacher has random weights: only one who listens to it comes near it
    assert distances["teacher"] < distances["labels"] / 3


def _logits(net: nn.Module, data: Data) -> np.ndarray[Any, Any]:
    found = evaluate(net, data.validation, Classification()).logits
    return found - found.mean(1, keepdims=True)  # a softmax does not see a common shift


def test_features_of_another_width_are_projected_and_the_projector_is_trained(
    tmp_path: Path, data: Data, teacher: Any
) -> None:
    stored = TeacherOutputs.open(
        tmp_path / "t",
        teacher,
        data,
        augment=Augment(),
        epochs=20,
        progress=Silent(),
        taps=("2",),
    )
    settings = _QUICK.model_copy(update={"epochs": 20})
    net = _net()
    feature = FeatureMSE(student_layer="2", teacher_layer="2")
    names = list(_state(net))
    result = _train(net, data, tmp_path / "s", settings, objectives=(feature,), teacher=stored)
    assert result.history[-1].loss < result.history[0].loss / 2
    assert list(_state(net)) == names  # the projector is not part of the student


def test_no_objectives_means_labels_with_the_settings_smoothing(
    tmp_path: Path, data: Data
) -> None:
    settings = _QUICK.model_copy(update={"label_smoothing": 0.2})
    plain, explicit = _net(), _net()
    _train(plain, data, tmp_path / "a", settings)
    _train(explicit, data, tmp_path / "b", objectives=(HardLabel(label_smoothing=0.2),))
    assert _same(_state(plain), _state(explicit))


@pytest.mark.parametrize("select", ["last", "best_validation"])
def test_the_selected_weights_are_those_of_their_epoch(
    tmp_path: Path, data: Data, select: str
) -> None:
    # a rate far too high in the end: the best epoch is not the last one
    settings = TrainSettings(
        **{**_QUICK.model_dump(), "epochs": 6, "learning_rate": 2.0, "schedule": "constant"},
    ).model_copy(update={"select": select})
    net = _net()
    result = _train(net, data, tmp_path, settings)
    epoch = result.best_epoch if select == "best_validation" else 5
    assert result.best_epoch < 5
    found = evaluate(net, data.validation, Classification())
    assert found.loss == pytest.approx(result.history[epoch].validation_loss, rel=1e-5)


def test_a_callback_sees_every_epoch_once(tmp_path: Path, data: Data) -> None:
    seen: list[tuple[int, EpochRecord]] = []
    result = _train(
        _net(), data, tmp_path, on_epoch_end=lambda epoch, record: seen.append((epoch, record))
    )
    assert seen == list(enumerate(result.history))


def test_progress_counts_every_step_and_says_nothing_more_for_more_steps(
    tmp_path: Path, data: Data, told: Any
) -> None:
    _train(_net(), data, tmp_path, progress=told)
    assert told.bars == [("student", 24, 0)]
    assert told.advanced == 24
    assert told.lines == []
    assert told.notes[-1].startswith("epoch 4/4 loss 0.")
    assert " accuracy " in told.notes[-1]


def test_a_loss_that_is_not_finite_names_epoch_and_step(tmp_path: Path, data: Data) -> None:
    class Breaks(nn.Module):
        """Divides by zero at its 9th training step, which is step 3 of epoch 2."""

        def __init__(self) -> None:
            super().__init__()
            self.net = _net()
            self.register_buffer("count", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.net(x)
            if self.training:
                self.count += 1
                out = out + torch.where(self.count == 9, math.inf, 0.0)
            return out

    with pytest.raises(DataError) as error:
        _train(Breaks(), data, tmp_path)
    text = str(error.value)
    assert "The loss is not finite in epoch 2, step 3." in text
    assert re.search(r"got:      (inf|nan) in the training of \S", text)
    assert "lower learning_rate, or set clip_norm" in text


def test_without_a_teacher_an_objective_that_needs_one_is_refused(
    tmp_path: Path, data: Data
) -> None:
    with pytest.raises(RecipeError) as error:
        _train(_net(), data, tmp_path, objectives=(LogitsKL(),))
    text = str(error.value)
    assert "LogitsKL reads 'logits' of the teacher, and its outputs are not at hand." in text
    assert "a training without a teacher" in text


def test_a_train_split_of_one_sample_is_refused(tmp_path: Path, data: Data) -> None:
    from dataclasses import replace

    one = ResidentSplit(data.train.batch(np.arange(1)), np.array([0]))
    with pytest.raises(DataError, match="The train split is too small to train on"):
        _train(_net(), replace(data, train=one), tmp_path)


def test_gradient_clipping_bounds_the_update(tmp_path: Path, data: Data) -> None:
    moved = {}
    for name, clip in (("clipped", 1e-3), ("free", None)):
        net = _net()
        before = _state(net)
        settings = TrainSettings(
            epochs=1, batch_size=90, learning_rate=1.0, momentum=0, nesterov=False,
            weight_decay=0, warmup_epochs=0, clip_norm=clip, schedule="constant",
        )  # fmt: skip
        _train(net, data, tmp_path / name, settings)
        steps = [(t - before[n]).flatten() for n, t in net.named_parameters()]
        moved[name] = torch.cat(steps).norm().item()
    assert moved["clipped"] == pytest.approx(1e-3, rel=1e-3)
    assert moved["free"] > 10 * moved["clipped"]


def test_memory_layout_is_plain_again_afterwards(tmp_path: Path, data: Data) -> None:
    net = _net()
    _train(net, data, tmp_path)
    weight = net.get_parameter("0.weight")
    assert weight.is_contiguous(memory_format=torch.contiguous_format)
