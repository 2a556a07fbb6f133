"""A small data set that a small network can learn, and a teacher for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgekd.distill.feed import ResidentSplit
from edgekd.distill.objectives._contract import LOGITS
from edgekd.tasks._contract import Data
from edgekd.tasks.classification import Classification


def make_data(train: int = 90, size: int = 6, seed: int = 0) -> Data:
    """Images of one bright quadrant each; the class is which one."""
    draw = np.random.default_rng(seed)

    def split(count: int) -> ResidentSplit:
        labels = np.arange(count) % 4
        images = draw.normal(0, 0.7, (count, 1, size, size))
        half = size // 2
        for i, label in enumerate(labels):
            row, column = divmod(label, 2)
            images[i, 0, row * half : (row + 1) * half, column * half : (column + 1) * half] += 1
        return ResidentSplit(images.astype(np.float32), labels.astype(np.int64))

    return Data(
        train=split(train),
        validation=split(40),
        test=split(40),
        classes=("a", "b", "c", "d"),
        input_shape=(1, size, size),
        fingerprint=f"quadrants-{train}-{size}-{seed}",
        description="bright quadrants, made here",
    )


def make_net(seed: int = 0, width: int = 4, dropout: float = 0.0) -> nn.Sequential:
    """A convolution with batch norm, and a linear head."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(width * 9, 4),
        )


class NetTeacher:
    """A network asked for logits and taps, counting how many samples it saw."""

    def __init__(self, net: nn.Module, sha256: str = "teacher-0") -> None:
        self.net, self.sha256, self.asked = net.eval(), sha256, 0
        self.module = net

    def taps(self, inputs: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        self.asked += len(inputs)
        out, kept = inputs, {}
        with torch.no_grad():
            for name, layer in self.net.named_children():
                out = layer(out)
                kept[name] = out.clone()
        return {name: out if name == LOGITS else kept[name] for name in names}


@pytest.fixture
def data() -> Data:
    return make_data()


@pytest.fixture
def task() -> Classification:
    return Classification()


@pytest.fixture
def teacher() -> NetTeacher:
    return NetTeacher(make_net(seed=5, width=6))


@pytest.fixture
def other_data(data: Data) -> Data:
    return replace(make_data(seed=1), fingerprint="other")


class Told:
    """A progress that remembers what it was told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.bars: list[tuple[str, int, int]] = []
        self.advanced = 0
        self.notes: list[str] = []

    def bar(self, title: str, total: int, done: int = 0) -> Told:
        self.bars.append((title, total, done))
        return self

    def __enter__(self) -> Told:
        return self

    def __exit__(self, *exc: object) -> None:
        return None

    def advance(self, steps: int = 1, note: str = "") -> None:
        self.advanced += steps
        if note:
            self.notes.append(note)

    def say(self, message: str) -> None:
        self.lines.append(message)


@pytest.fixture
def told() -> Told:
    return Told()
