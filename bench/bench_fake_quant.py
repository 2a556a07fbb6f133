"""What a quantization-aware training step costs beside the float step of the same student.

    python bench/bench_fake_quant.py            # about two minutes on one core
    python bench/bench_fake_quant.py --smoke    # a few seconds: does it still run?

A step is forward, cross-entropy, backward and SGD update on images in memory, in the layout that
the trainer uses. The float step trains batch-norm, the others have it folded, as in edgekd. All
arms run in turns, and the clock is the process's CPU time: a step waits for nothing, so on one
thread that is its time without the neighbours'. Every sample is kept in runs/fake_quant.json.
Images are random numbers: no step takes longer for one than for another.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from edgekd.core.types import Scheme
from edgekd.distill.settings import TrainSettings
from edgekd.distill.step import Stepper
from edgekd.quantize.convert import QuantizationAware
from edgekd.quantize.settings import QuantizeSettings
from edgekd.students._build import build_seeded
from edgekd.students._contract import NetSpec
from edgekd.students.resnet import ResNet

ROOT = Path(__file__).resolve().parent.parent
SPEC = NetSpec((1, 28, 28), 10)
STUDENT = ResNet(widths=(16, 32, 64), depths=(1, 1, 1))
SCHEME = Scheme(activations="uint8", bias="int32")
WANTED_RATIO = 1.35
FLOAT, JUDGED = "float", "minmax, learned activation ranges"
#: arm -> (weight quantizer, activation ranges learned)
ARMS = {
    JUDGED: ("minmax", True),
    "minmax, observed activation ranges": ("minmax", False),
    "mse, learned activation ranges": ("mse", True),
    "lsq, learned activation ranges": ("lsq", True),
}

Step = Callable[[], None]


def student() -> nn.Module:
    return build_seeded(STUDENT, SPEC, 0).eval()


def make_step(net: nn.Module, batch: int) -> Step:
    draw = np.random.default_rng(0)
    images = torch.from_numpy(draw.normal(size=(batch, *SPEC.input_shape)).astype(np.float32))
    labels = torch.from_numpy(draw.integers(0, SPEC.outputs, batch))
    settings = TrainSettings(epochs=1, learning_rate=1e-3, precision="float32")
    stepper = Stepper(
        net.train(), settings, (), input_shape=SPEC.input_shape, teacher_shapes={}, seed=0
    )
    if stepper.channels_last:
        images = images.to(memory_format=torch.channels_last)

    def step() -> None:
        stepper.optimizer.zero_grad()
        F.cross_entropy(net(images), labels).backward()
        stepper.optimizer.step()

    return step


def arms(batch: int) -> dict[str, Step]:
    steps = {FLOAT: make_step(student(), batch)}
    samples = np.random.default_rng(1).normal(size=(64, *SPEC.input_shape)).astype(np.float32)
    for name, (weights, learned) in ARMS.items():
        settings = QuantizeSettings.model_validate({"weights": weights})
        aware = QuantizationAware(student(), settings, SCHEME, samples, learned=learned, seed=0)
        steps[name] = make_step(aware.module, batch)
    return steps


def timed_rounds(steps: dict[str, Step], rounds: int) -> dict[str, list[int]]:
    """CPU nanoseconds of every step; the arms take turns, each round starts with another one."""
    names = list(steps)
    samples: dict[str, list[int]] = {name: [] for name in names}
    for step in steps.values():
        for _ in range(2):  # first calls choose kernels and allocate
            step()
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            begun = time.process_time_ns()
            steps[name]()
            samples[name].append(time.process_time_ns() - begun)
    return samples


def machine() -> dict[str, Any]:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next((x.partition(":")[2].strip() for x in lines if "model name" in x), "unknown CPU")
    return {
        "cpu": model,
        "threads": torch.get_num_threads(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "load_average": os.getloadavg(),
    }


def summary(samples: dict[str, list[int]], batch: int) -> dict[str, Any]:
    medians = {name: statistics.median(times) / 1e6 for name, times in samples.items()}
    ratios = {name: median / medians[FLOAT] for name, median in medians.items()}
    facts = machine()
    lines = [
        "| training step | median CPU ms | times the float step |",
        "|---|---|---|",
        *(f"| {name} | {medians[name]:.1f} | {ratios[name]:.2f} |" for name in medians),
        "",
        f"Median of {len(samples[FLOAT])} steps of {batch} samples 28x28x1 each, in turns; "
        f"residual student 16-32-64. {facts['cpu']}, {facts['threads']} threads, "
        f"torch {facts['torch']}.",
    ]
    return {
        "schema": 1,
        "ratio": ratios[JUDGED],
        "ratios": ratios,
        "median_ms": medians,
        "machine": facts,
        "samples_ns": samples,
        "markdown": "\n".join(lines),
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=60, help="steps of each arm")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--smoke", action="store_true", help="one step of each, no verdict")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "fake_quant.json")
    args = parser.parse_args(arguments)
    if args.smoke:
        args.rounds, args.batch = 1, 8
    torch.set_num_threads(args.threads)
    report = summary(timed_rounds(arms(args.batch), args.rounds), args.batch)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(report, indent=1) + "\n")
    print(report["markdown"])
    print(f"every sample: {args.out}")
    if args.smoke:
        return 0
    return 0 if report["ratio"] <= WANTED_RATIO else 1


if __name__ == "__main__":
    raise SystemExit(main())
