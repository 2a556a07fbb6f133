"""Kill the training anywhere: the same call goes on, and ends with the same bits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from edgekd.core.progress import Silent
from edgekd.distill import trainer
from edgekd.distill.cache import TeacherOutputs
from edgekd.distill.objectives.feature_mse import FeatureMSE
from edgekd.distill.objectives.hard_label import HardLabel
from edgekd.distill.objectives.logits_kl import LogitsKL
from edgekd.distill.settings import Augment, TrainSettings
from edgekd.distill.state import model_sha256
from edgekd.distill.trainer import TrainResult, train
from edgekd.tasks._contract import Data
from edgekd.tasks.classification import Classification

_AUGMENT = Augment(crop_px=1, flip=True, views=2)
_EVERY_STEP = 1e-9  # seconds between checkpoints
_SETTINGS = {
    "sgd": TrainSettings(epochs=3, batch_size=16, augment=_AUGMENT, select="best_validation"),
    "adamw": TrainSettings(
        epochs=3, batch_size=16, optimizer="adamw", learning_rate=1e-2, clip_norm=1.0
    ),
    "bfloat16": TrainSettings(epochs=3, batch_size=16, precision="bfloat16", augment=_AUGMENT),
    "no_momentum": TrainSettings(epochs=3, batch_size=16, momentum=0, nesterov=False),
}
_TOTAL = 3 * 6


def _net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(36, 4),
    )


class _Killer(Silent):
    """A progress that ends the training behind a given step of this session."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def bar(self, title: str, total: int, done: int = 0) -> Any:
        return self

    def __enter__(self) -> _Killer:
        return self

    def __exit__(self, *exc: object) -> None:
        return None

    def advance(self, steps: int = 1, note: str = "") -> None:
        self.left -= steps
        if self.left < 0:
            raise KeyboardInterrupt


def _call(
    folder: Path, data: Data, settings: TrainSettings, progress: Any = None, **more: Any
) -> tuple[nn.Module, TrainResult]:
    net = more.pop("net", None) or _net()
    fields: dict[str, Any] = {"seed": 3, "title": "student", **more}
    result = train(
        net,
        data,
        Classification(),
        settings=settings,
        folder=folder,
        progress=progress or Silent(),
        **fields,
    )
    return net, result


def _history(result: TrainResult) -> list[tuple[float, float, float]]:
    return [(r.loss, r.validation_score, r.validation_loss) for r in result.history]


@pytest.mark.parametrize("name", _SETTINGS)
@pytest.mark.parametrize("every_s", [_EVERY_STEP, 3600.0], ids=["each step", "each epoch"])
def test_killed_again_and_again_it_ends_with_the_same_bits(
    tmp_path: Path, data: Data, name: str, every_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "_EPOCH_END_S", 0.0)  # epochs this short would write none
    settings = _SETTINGS[name].model_copy(update={"checkpoint_every_s": every_s})
    whole_net, whole = _call(tmp_path / "whole", data, settings)
    # sessions of 0, 1, 2, ... steps: with a checkpoint per epoch only, 7 steps must fit in one
    for steps in (0, 1, 2, 3, 5, 7, 8):
        try:
            _call(tmp_path / "cut", data, settings, _Killer(steps))
        except KeyboardInterrupt:
            continue
    net, result = _call(tmp_path / "cut", data, settings)
    assert model_sha256(net) == model_sha256(whole_net)
    assert _history(result) == _history(whole)
    assert (result.best_epoch, result.steps) == (whole.best_epoch, whole.steps)
    assert result.resumed_from is not None


def test_a_training_that_is_stopped_early_ends_alike_however_often_it_is_killed(
    tmp_path: Path, data: Data
) -> None:
    settings = _SETTINGS["sgd"].model_copy(update={"checkpoint_every_s": _EVERY_STEP})

    def after_two(history: Any) -> bool:
        return len(history) == 2

    whole_net, whole = _call(tmp_path / "whole", data, settings, stop_when=after_two)
    assert (whole.stopped, len(whole.history), whole.steps) == (True, 2, _TOTAL * 2 // 3)
    with pytest.raises(KeyboardInterrupt):
        _call(tmp_path / "cut", data, settings, _Killer(8), stop_when=after_two)
    net, result = _call(tmp_path / "cut", data, settings, stop_when=after_two)
    assert (result.stopped, result.resumed_from) == (True, 8)
    assert model_sha256(net) == model_sha256(whole_net)
    again, _ = _call(tmp_path / "cut", data, settings, stop_when=after_two)
    assert model_sha256(again) == model_sha256(whole_net)
    assert not _call(tmp_path / "never", data, settings, stop_when=lambda _: False)[1].stopped


def test_a_projector_and_a_teacher_resume_too(tmp_path: Path, data: Data, teacher: Any) -> None:
    stored = TeacherOutputs.open(
        tmp_path / "t", teacher, data, augment=_AUGMENT, epochs=3, progress=Silent(), taps=("2",)
    )
    more = {
        "teacher": stored,
        "objectives": (
            HardLabel(weight=0.3),
            LogitsKL(weight=0.7),
            FeatureMSE(student_layer="2", teacher_layer="2"),
        ),
    }
    settings = _SETTINGS["sgd"].model_copy(update={"checkpoint_every_s": _EVERY_STEP})
    whole_net, _ = _call(tmp_path / "whole", data, settings, **more)
    with pytest.raises(KeyboardInterrupt):
        _call(tmp_path / "cut", data, settings, _Killer(8), **more)
    net, result = _call(tmp_path / "cut", data, settings, **more)
    assert result.resumed_from == 8
    assert model_sha256(net) == model_sha256(whole_net)


def test_a_finished_training_is_not_done_again(tmp_path: Path, data: Data, told: Any) -> None:
    first_net, first = _call(tmp_path, data, _SETTINGS["sgd"])
    net, again = _call(tmp_path, data, _SETTINGS["sgd"], told)
    assert model_sha256(net) == model_sha256(first_net)
    assert again.history == first.history
    assert again.resumed_from == again.steps == _TOTAL
    assert told.advanced == 0
    assert told.lines == []


@pytest.mark.parametrize("damaged", [1, 2])
def test_a_damaged_checkpoint_falls_back_and_says_so(
    tmp_path: Path, data: Data, told: Any, damaged: int
) -> None:
    settings = _SETTINGS["sgd"].model_copy(update={"checkpoint_every_s": _EVERY_STEP})
    whole_net, _ = _call(tmp_path / "whole", data, settings)
    with pytest.raises(KeyboardInterrupt):
        _call(tmp_path / "cut", data, settings, _Killer(8))
    files = sorted((tmp_path / "cut").glob("*.safetensors"), reverse=True)
    assert [f.name for f in files] == [
        "step-0000000008.safetensors",
        "step-0000000007.safetensors",
    ]
    for file in files[:damaged]:
        file.write_bytes(file.read_bytes()[:-100])
    net, result = _call(tmp_path / "cut", data, settings, told)
    assert model_sha256(net) == model_sha256(whole_net)
    assert "student: the checkpoint step-0000000008.safetensors is damaged" in told.lines[0]
    if damaged == 1:
        assert result.resumed_from == 7
        assert told.lines[-1] == "student: continuing after step 7 of 18"
    else:
        assert result.resumed_from is None
        assert told.lines[-1] == "student: starting over"


@pytest.mark.parametrize(
    "change", ["settings", "seed", "data", "first weights", "objectives", "view_seed"]
)
def test_another_training_in_the_same_folder_starts_over(
    tmp_path: Path, data: Data, other_data: Data, told: Any, change: str
) -> None:
    settings = _SETTINGS["sgd"]
    _call(tmp_path, data, settings)
    more: dict[str, Any] = {}
    if change == "settings":
        settings = settings.model_copy(update={"weight_decay": 1e-3})
    elif change == "data":
        data = other_data
    elif change == "seed":
        more = {"seed": 4}
    elif change == "first weights":
        more = {"net": _net(seed=1)}
    elif change == "view_seed":
        more = {"view_seed": 1}
    else:
        more = {"objectives": (HardLabel(label_smoothing=0.1),)}
    _, result = _call(tmp_path, data, settings, told, **more)
    assert result.resumed_from is None
    assert told.lines[0].endswith("is of a training with other settings")
    assert told.lines[-1] == "student: starting over"


def test_how_often_it_saves_does_not_make_it_another_training(tmp_path: Path, data: Data) -> None:
    _call(tmp_path, data, _SETTINGS["sgd"])
    slower = _SETTINGS["sgd"].model_copy(update={"checkpoint_every_s": 5.0})
    assert _call(tmp_path, data, slower)[1].resumed_from == _TOTAL


def test_another_number_of_threads_is_said(tmp_path: Path, data: Data, told: Any) -> None:
    settings = _SETTINGS["sgd"].model_copy(update={"checkpoint_every_s": _EVERY_STEP})
    with pytest.raises(KeyboardInterrupt):
        _call(tmp_path, data, settings, _Killer(8))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        _call(tmp_path, data, settings, told)
    finally:
        torch.set_num_threads(threads)
    assert told.lines[0] == (
        f"student: continuing with {threads + 1} threads after {threads}:"
        " the last bits of the weights may differ"
    )


_PROGRAM = """
import os
import random
import signal
import sys
import time
from pathlib import Path
import torch
sys.path.insert(0, {tests!r})
from conftest import make_data
from edgekd.core.progress import Silent
from edgekd.distill import trainer
from edgekd.distill.settings import Augment, TrainSettings
from edgekd.distill.state import model_sha256
from edgekd.distill.trainer import train
from edgekd.students._build import build_seeded
from edgekd.students._contract import NetSpec
from edgekd.students.resnet import ResNet
from edgekd.tasks.classification import Classification

here = Path({folder!r})
settings = TrainSettings(
    epochs=3, batch_size=16, augment=Augment(crop_px=1), checkpoint_every_s=0.02,
    precision="bfloat16",
)

def start(name):
    pid = os.fork()  # torch has computed nothing yet, so no thread of it is lost in the child
    if pid:
        return pid
    torch.set_num_threads({threads})
    net = build_seeded(ResNet(widths=(8, 16), depths=(1, 1)), NetSpec((1, 12, 12), 4), 0)
    result = train(
        net, make_data(400, 12), Classification(), settings=settings, seed=1,
        folder=here / name, progress=Silent(), title="student",
    )
    print(name, model_sha256(net), result.resumed_from, flush=True)
    os._exit(0)

def steps_kept():
    return max((int(p.name[5:15]) for p in (here / "cut").glob("step-*")), default=0)

assert os.waitpid(start("whole"), 0)[1] == 0
draw, kills = random.Random({threads}), 0
for target in (1, 20, 45):  # of 75 steps
    pid = start("cut")
    while steps_kept() < target:
        time.sleep(0.002)
    time.sleep(draw.uniform(0, 0.02))
    os.kill(pid, signal.SIGKILL)
    kills += os.WIFSIGNALED(os.waitpid(pid, 0)[1])
print("kills", kills, flush=True)
assert os.waitpid(start("cut"), 0)[1] == 0
"""


@pytest.mark.parametrize("threads", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_sigkill_at_any_instant_ends_with_the_same_bits(tmp_path: Path, threads: int) -> None:
    program = _PROGRAM.format(
        tests=str(Path(__file__).parent), folder=str(tmp_path), threads=threads
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True
    )
    said = [line.split() for line in done.stdout.splitlines()]
    digests = {name: {line[1] for line in said if line[0] == name} for name in ("whole", "cut")}
    kills = next(int(line[1]) for line in said if line[0] == "kills")
    assert kills >= 2  # one may have ended just before
    assert said[-1][2] != "None"  # the last session continued, it did not start over
    assert len(digests["whole"]) == 1
    assert digests["cut"] == digests["whole"]
