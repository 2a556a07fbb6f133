"""The published temperature trap at 3-bit weights, with the quantizer and the start it is of.

    python bench/dorefa_trap.py --data ../shared/data     # five minutes on one slow core

Intel Distiller's recipe file (CIFAR-10, pre-activation ResNet-20, DoReFa with 3-bit weights and
8-bit activations, quantized from the first step) loses 10 points at T = 5 against T = 1, where
float gains one. Here the same layers, losses and start on a small network and on the data of
bench/low_bit_trap.py. The detector is asked after every epoch whether it would have stopped.

edgekd distils in float first and has no quantizer of this kind: the layers below are for this
bench alone. Everything trained stays in runs/dorefa_trap/, so a second call continues.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from cifar10 import provenance, say, scores
from low_bit_trap import ROOT, SIDE, TRAIN, prepare
from torch import Tensor, nn

from edgekd.core.files import atomic_write
from edgekd.core.progress import Silent
from edgekd.distill.cache import TeacherOutputs
from edgekd.distill.feed import resident_data
from edgekd.distill.objectives.hard_label import HardLabel
from edgekd.distill.objectives.logits_kl import LogitsKL
from edgekd.distill.settings import TrainSettings
from edgekd.distill.teacher import Teacher
from edgekd.distill.trainer import EpochRecord, train
from edgekd.steps.watch import Watch
from edgekd.tasks._contract import Data
from edgekd.tasks.classification import Classification
from edgekd.tasks.sources.arrays import Arrays

VALIDATION, PATIENCE, SEED = 3000, 3, 0
WEIGHT_BITS, ACTIVATION_BITS = 3, 8
TEMPERATURES = (1.0, 2.0, 5.0)
TASK = Classification()
SETTINGS = TrainSettings(
    epochs=12, batch_size=128, learning_rate=0.1, weight_decay=2e-4, precision="float32"
)


def rounded(x: Tensor, steps: int) -> Tensor:
    """To the nearest of `steps` + 1 points in [0, 1]; the gradient passes straight through."""
    return x + (torch.round(x * steps) / steps - x).detach()


class DoReFaConv(nn.Conv2d):
    """Weights ``2 round(n (tanh w / 2 max|tanh w| + 1/2)) / n - 1`` (arXiv:1606.06160, eq. 9)."""

    def forward(self, x: Tensor) -> Tensor:
        squashed = self.weight.tanh()
        unit = squashed / (2 * squashed.abs().max()) + 0.5
        weight = 2 * rounded(unit, 2**WEIGHT_BITS - 1) - 1
        return F.conv2d(x, weight, None, self.stride, self.padding)


class DoReFaReLU(nn.Module):
    """Activations clipped to [0, 1] and rounded."""

    def forward(self, x: Tensor) -> Tensor:
        return rounded(x.clamp(0, 1), 2**ACTIVATION_BITS - 1)


class Block(nn.Module):
    """Pre-activation block; `low` has its convolutions and inputs in few bits."""

    def __init__(self, before: int, width: int, stride: int, *, low: bool, first: bool) -> None:
        super().__init__()
        conv: type[nn.Conv2d] = DoReFaConv if low else nn.Conv2d
        relu: type[nn.Module] = DoReFaReLU if low else nn.ReLU
        self.bn1, self.bn2 = nn.BatchNorm2d(before), nn.BatchNorm2d(width)
        self.relu1, self.relu2 = nn.ReLU() if first else relu(), relu()
        self.conv1 = conv(before, width, 3, stride, 1, bias=False)
        self.conv2 = conv(width, width, 3, 1, 1, bias=False)
        self.shortcut = conv(before, width, 1, stride, bias=False) if stride > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        seen = self.relu1(self.bn1(x))
        past = x if self.shortcut is None else self.shortcut(seen)
        return past + self.conv2(self.relu2(self.bn2(self.conv1(seen))))


def network(width: int, *, low: bool) -> nn.Module:
    """Three blocks; first convolution and last layer in float, as published."""
    torch.manual_seed(SEED)
    blocks, before = [], width
    for stage in range(3):
        stride = 2 if stage else 1
        blocks.append(Block(before, width << stage, stride, low=low, first=not stage))
        before = width << stage
    end = (nn.BatchNorm2d(before), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    first = nn.Conv2d(1, width, 3, 1, 1, bias=False)
    return nn.Sequential(first, *blocks, *end, nn.Linear(before, 10))


class Arms:
    """Trains each arm once."""

    def __init__(self, runs: Path, data: Data, settings: TrainSettings) -> None:
        self.runs, self.data, self.settings = runs, data, settings
        net = network(16, low=False)
        self.teacher_scores, _ = self.trained("teacher", net, ())
        self.outputs = TeacherOutputs.open(
            runs / "outputs",
            Teacher.from_module(net, "teacher"),
            data,
            augment=settings.augment,
            epochs=settings.epochs,
            progress=Silent(),
        )

    def trained(
        self, name: str, net: nn.Module, objectives: Sequence[Any]
    ) -> tuple[dict[str, float], Sequence[EpochRecord]]:
        result = train(
            net,
            self.data,
            TASK,
            settings=self.settings,
            objectives=objectives,
            teacher=self.outputs if objectives else None,
            seed=SEED,
            folder=self.runs / name,
            progress=Silent(),
            title=name,
            on_epoch_end=say(name),
        )
        return scores(net, self.data), result.history

    def arm(
        self, temperature: float | None, *, low: bool
    ) -> tuple[dict[str, float], Sequence[EpochRecord]]:
        """On labels alone where there is no temperature."""
        objectives: list[Any] = []
        if temperature is not None:
            objectives = [HardLabel(weight=0.3), LogitsKL(weight=0.7, temperature=temperature)]
        name = f"{'w3a8' if low else 'float'}-{temperature or 'labels'}"
        return self.trained(name, network(8, low=low), objectives)


def stopped_after(control: Sequence[EpochRecord], distilled: Sequence[EpochRecord]) -> int | None:
    """Epoch after which the detector would have ended the distilled arm."""
    watch = Watch(
        controls=(tuple(record.validation_score for record in control),),
        paired=0,
        task=TASK,
        samples=VALIDATION,
        patience=PATIENCE,
    )
    ends = range(1, len(distilled) + 1)
    return next((epoch for epoch in ends if watch(distilled[:epoch])), None)


def table(runs: Path, data: Data, settings: TrainSettings) -> dict[str, Any]:
    arms = Arms(runs, data, settings)
    lines = [
        "| student | labels alone | T | distilled to the end | against them | the detector |",
        "| --- | ---: | ---: | ---: | ---: | --- |",
    ]
    rows = []
    for low in (False, True):
        control, history = arms.arm(None, low=low)
        for temperature in TEMPERATURES:
            found, seen = arms.arm(temperature, low=low)
            stopped = stopped_after(history, seen)
            gain = 100 * (found["test"] - control["test"])
            rows.append(
                {"low": low, "temperature": temperature, "control": control, **found}
                | {"stopped_after": stopped}
            )
            detector = "lets it end" if stopped is None else f"stops it after epoch {stopped}"
            lines.append(
                f"| {'W3A8' if low else 'float'} | {control['test']:.2%} | {temperature:g}"
                f" | {found['test']:.2%} | {gain:+.2f} pt | {detector} |"
            )
    made = provenance()
    lines += [
        "",
        f"Test accuracy, one seed, {settings.epochs} epochs from random weights on"
        f" {TRAIN - VALIDATION:,} samples of Fashion-MNIST at {SIDE}x{SIDE}; teacher, float, twice"
        f" as wide: {arms.teacher_scores['test']:.2%}. Made on {made['cpu']}, torch"
        f" {made['torch']}.",
    ]
    return {"rows": rows, "provenance": made, "markdown": "\n".join(lines)}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of fashion-mnist/")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "dorefa_trap")
    parser.add_argument("--smoke", action="store_true", help="one epoch each")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    prepare(args.data, args.runs / "fashion14.npz")
    source = Arrays(path="fashion14.npz", layout="NHWC", validation=VALIDATION)
    data = resident_data(source.load(args.runs))
    settings = SETTINGS.model_copy(update={"epochs": 1} if args.smoke else {})
    found = table(args.runs, data, settings)
    atomic_write(args.runs.with_suffix(".json"), json.dumps(found, indent=1) + "\n")
    print(found["markdown"])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
