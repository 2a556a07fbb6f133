"""CIFAR-10 (JPEG set): the teacher and the float students that the tables start from.

    python bench/cifar10.py --data ../shared/data            # about two hours on one core
    python bench/cifar10.py --data ../shared/data --smoke    # seconds: does it still run?

The teacher is the published ResNet-20 of akamaster/pytorch_resnet_cifar10 (BSD-2), which knows the
lossless pixels, fine-tuned on the JPEG ones. Students are the small nets of Polino et al. (2018,
arXiv:1802.05668), distilled from it. Every finished part is one JSON file and one safetensors file
in runs/cifar10/; a second call skips what is there and continues what was cut off.
"""

from __future__ import annotations

import argparse
import datetime
import io
import json
import platform
import shutil
import subprocess
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from edgekd.core.files import atomic_write
from edgekd.core.progress import Silent
from edgekd.distill.cache import TeacherOutputs
from edgekd.distill.evaluation import evaluate
from edgekd.distill.objectives.hard_label import HardLabel
from edgekd.distill.objectives.logits_kl import LogitsKL
from edgekd.distill.settings import Augment, TrainSettings
from edgekd.distill.teacher import Teacher
from edgekd.distill.trainer import EpochRecord, train
from edgekd.distill.weights import fill, load_weights, save_weights
from edgekd.students._build import build_seeded
from edgekd.students._contract import NetSpec
from edgekd.students._cost import count_macs, count_parameters
from edgekd.students.convnet import ConvNet
from edgekd.tasks._contract import Data
from edgekd.tasks.classification import Classification
from edgekd.tasks.sources._scaling import Scaling
from edgekd.tasks.sources.arrays import Arrays

ROOT = Path(__file__).resolve().parent.parent
SPEC = NetSpec((3, 32, 32), 10)
TASK = Classification()
#: of akamaster's training; the students take the same inputs
SCALING = Scaling(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
STUDENTS = {
    "student2": ConvNet(stages=((50, 25), (25, 10)), kernel=5, hidden=(400,)),
    "student3": ConvNet(stages=((25, 10), (10, 5)), kernel=5, hidden=(300,)),
}
VIEWS = 4
AUGMENT = Augment(crop_px=4, flip=True, views=VIEWS)
OBJECTIVES = (LogitsKL(weight=0.9, temperature=4.0), HardLabel(weight=0.1))
TEACHER_TRAIN = TrainSettings(
    epochs=2, learning_rate=0.02, weight_decay=1e-4, warmup_epochs=0.1, augment=AUGMENT
)
STUDENT_TRAIN = TrainSettings(
    epochs=12, learning_rate=0.1, weight_decay=1e-4, warmup_epochs=0.5, augment=AUGMENT
)
PARTS = (
    "teacher",
    *(f"student3-seed{seed}" for seed in range(3)),
    "student3-control-seed0",
    "student2-seed0",
)


class _Block(nn.Module):
    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.stride, self.quarter = width // width_in, width_in // 2
        self.conv1 = nn.Conv2d(width_in, width, 3, self.stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.stride == 2:  # option A of arXiv:1512.03385: subsample, pad channels with zeros
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.quarter, self.quarter))
        return F.relu(out + x)


class ResNet20(nn.Module):
    """As akamaster built and named it, so that its weights load."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        for i, (a, b) in enumerate([(16, 16), (16, 32), (32, 64)], 1):
            setattr(self, f"layer{i}", nn.Sequential(_Block(a, b), _Block(b, b), _Block(b, b)))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


def prepare(shared: Path, path: Path, per_class: int | None = None) -> None:
    """Decode the JPEG archive into one .npz; members are read by name, nothing is extracted."""
    if path.is_file():
        return
    arrays = {}
    with zipfile.ZipFile(shared / "cifar10" / "cifar10_jpeg_q75_60000.zip") as archive:
        names = sorted(archive.namelist())
        classes = sorted({name.split("/")[1] for name in names})
        for split in ("train", "test"):
            folders = [f"{split}/{name}/" for name in classes]
            mine = [n for f in folders for n in _inside(names, f)[:per_class]]
            images = [np.asarray(Image.open(io.BytesIO(archive.read(n)))) for n in mine]
            arrays[f"x_{split}"] = np.stack(images)
            arrays[f"y_{split}"] = np.array([classes.index(n.split("/")[1]) for n in mine])
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part.npz")
    np.savez(partial, **arrays)
    partial.replace(path)


def _inside(names: list[str], folder: str) -> list[str]:
    return [name for name in names if name.startswith(folder)]


def load_data(runs: Path) -> Data:
    """A tenth of the train images, 5,000 of 50,000, are the validation split."""
    source = Arrays(path="cifar10.npz", layout="NHWC", validation=0.1, scaling=SCALING)
    return source.load(runs)


def provenance() -> dict[str, Any]:
    cpuinfo = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((x.partition(":")[2].strip() for x in cpuinfo if "model name" in x), "unknown CPU")
    git = shutil.which("git") or "git"
    commit = subprocess.run(
        [git, "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return {
        "created_utc": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cpu": cpu,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "commit": commit.stdout.strip() or "unknown",
    }


class Parts:
    """Finished parts on disk: NAME.json with the result, NAME.safetensors with the weights."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def result(self, name: str) -> dict[str, Any] | None:
        path = self.folder / f"{name}.json"
        return json.loads(path.read_text()) if path.is_file() else None

    def weights(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"

    def finish(self, name: str, module: nn.Module, result: dict[str, Any]) -> None:
        save_weights(self.weights(name), module.state_dict(), {"part": name})
        text = json.dumps({"part": name, **result, "provenance": provenance()}, indent=1)
        atomic_write(self.folder / f"{name}.json", text + "\n")


def say(title: str) -> Callable[[int, EpochRecord], None]:
    def show(epoch: int, record: EpochRecord) -> None:
        now = time.strftime("%H:%M:%S")
        print(
            f"{now} {title}: epoch {epoch + 1} loss {record.loss:.4f}"
            f" validation {record.validation_score:.4f} ({record.train_s:.0f} s)",
            flush=True,
        )

    return show


def scores(module: nn.Module, data: Data) -> dict[str, float]:
    validation, test = (evaluate(module, split, TASK) for split in (data.validation, data.test))
    return {"validation": validation.score, "validation_loss": validation.loss, "test": test.score}


def load_teacher(parts: Parts) -> Teacher:
    net = ResNet20()
    fill(net, load_weights(parts.weights("teacher")), source="teacher")
    return Teacher.from_module(net, "ResNet-20")


def make_teacher(parts: Parts, data: Data, shared: Path, settings: TrainSettings) -> None:
    net = ResNet20()
    folder = shared / "weights" / "akamaster" / "pretrained_models"
    (path,) = folder.glob("resnet20-*.th")
    fill(net, load_weights(path), source=path.name)
    found = _trained("teacher", net, parts, data, settings, 0)
    parts.finish("teacher", net, found)


def make_student(parts: Parts, data: Data, name: str, settings: TrainSettings) -> None:
    family, *_, seed_text = name.split("-")
    seed, control = int(seed_text.removeprefix("seed")), "control" in name
    net = build_seeded(STUDENTS[family], SPEC, seed)
    said = None if control else teacher_outputs(parts, data, settings)
    found = _trained(name, net, parts, data, settings, seed, said)
    parts.finish(name, net, found)


def teacher_outputs(parts: Parts, data: Data, settings: TrainSettings) -> TeacherOutputs:
    return TeacherOutputs.open(
        parts.folder / "teacher-outputs",
        load_teacher(parts),
        data,
        augment=AUGMENT,
        epochs=settings.epochs,
        progress=Silent(),
    )


def _trained(
    name: str,
    net: nn.Module,
    parts: Parts,
    data: Data,
    settings: TrainSettings,
    seed: int,
    teacher: TeacherOutputs | None = None,
) -> dict[str, Any]:
    objectives = OBJECTIVES if teacher is not None else ()
    result = train(
        net,
        data,
        TASK,
        settings=settings,
        objectives=objectives,
        teacher=teacher,
        seed=seed,
        folder=parts.folder / "checkpoints" / name,
        progress=Silent(),
        title=name,
        on_epoch_end=say(name),
    )
    return {
        **scores(net, data),
        "seed": seed,
        "parameters": count_parameters(net),
        "macs": count_macs(net, SPEC.input_shape),
        "train_s": result.train_s,
        "train": settings.model_dump(mode="json"),
        "objectives": [{type(o).__name__: o.model_dump(mode="json")} for o in objectives],
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of cifar10/ and weights/")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "cifar10")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--parts", nargs="*", default=PARTS)
    parser.add_argument("--smoke", action="store_true", help="few images, one epoch")
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    parts = Parts(args.runs)
    prepare(args.data, args.runs / "cifar10.npz", 20 if args.smoke else None)
    data = load_data(args.runs)
    less = {"epochs": 1, "batch_size": 36} if args.smoke else {}
    for name in args.parts:
        if parts.result(name) is not None:
            continue
        if name == "teacher":
            make_teacher(parts, data, args.data, TEACHER_TRAIN.model_copy(update=less))
        else:
            make_student(parts, data, name, STUDENT_TRAIN.model_copy(update=less))
        found = parts.result(name)
        print(f"{name}: test {found['test']:.4f}, {found['train_s']:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
