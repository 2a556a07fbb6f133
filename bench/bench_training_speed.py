"""How much faster a distillation step of edgekd is than a plain eager loop.

    python bench/bench_training_speed.py            # about four minutes on two cores
    python bench/bench_training_speed.py --smoke    # a few seconds: does it still run?
    python bench/bench_training_speed.py --compile  # also torch.compile, in an arm of its own

The plain loop is what one writes first: float32, NCHW, the teacher run in every step under
no_grad, cross-entropy plus Hinton's term, SGD with momentum. Both loops see the same samples with
the same augmentation, take the same student and the same batch size, and run in turns, so that a
noisy neighbour hits both. The stored teacher outputs are not free: their share per step (one pass
of the teacher per view, spread over the epochs) is measured and added to edgekd's time.

Every step's time is kept in runs/training_speed.json. Images are random numbers of Fashion-MNIST's
shape: no step takes longer for one image than for another.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekd.core.progress import Silent
from edgekd.distill.augment import apply_view
from edgekd.distill.cache import TeacherOutputs
from edgekd.distill.feed import Feed, ResidentSplit
from edgekd.distill.objectives._contract import LOGITS
from edgekd.distill.objectives.hard_label import HardLabel
from edgekd.distill.objectives.logits_kl import LogitsKL
from edgekd.distill.precision import NATIVE_BFLOAT16, cpu_flags, fast_layout
from edgekd.distill.settings import Augment, TrainSettings
from edgekd.distill.step import Stepper
from edgekd.students._build import build_seeded
from edgekd.students._contract import NetSpec
from edgekd.students._cost import count_macs
from edgekd.students.resnet import ResNet
from edgekd.tasks._contract import Data

ROOT = Path(__file__).resolve().parent.parent
SPEC = NetSpec((1, 28, 28), 10)
TEACHER = ResNet(widths=(32, 64, 128), depths=(1, 1, 1))
STUDENT = ResNet(widths=(10, 20, 40), depths=(1, 1, 1))
EPOCHS, VIEWS = 40, 8
AUGMENT = Augment(crop_px=2, flip=True, views=VIEWS)
TEMPERATURE, SOFT, HARD = 4.0, 0.9, 0.1
WANTED_RATIO = 2.5

Step = Callable[[int], None]


class EagerTeacher:
    sha256 = "bench"

    def __init__(self) -> None:
        self.net = build_seeded(TEACHER, SPEC, 1).eval()

    @property
    def module(self) -> nn.Module:
        return self.net

    def taps(self, inputs: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        with torch.no_grad():
            return {name: self.net(inputs) for name in names}


def make_data(samples: int) -> Data:
    draw = np.random.default_rng(0)
    images = draw.normal(size=(samples, *SPEC.input_shape)).astype(np.float32)
    split = ResidentSplit(images, draw.integers(0, SPEC.outputs, samples))
    names = tuple(str(i) for i in range(SPEC.outputs))
    return Data(split, split, split, names, SPEC.input_shape, "bench", "random images")


def plain_loop(data: Data, feed: Feed, teacher: EagerTeacher) -> Step:
    student = build_seeded(STUDENT, SPEC, 0).train()
    optimizer = torch.optim.SGD(
        student.parameters(), lr=1e-3, momentum=0.9, nesterov=True, weight_decay=5e-4
    )

    def step(position: int) -> None:
        indices = feed.indices(0, position)
        plain, labels = feed.read(indices)
        inputs = apply_view(plain, indices, AUGMENT, view=0, seed=0)
        with torch.no_grad():
            said = teacher.net(inputs)
        logits = student(inputs)
        soft = F.kl_div(
            F.log_softmax(logits / TEMPERATURE, 1),
            F.softmax(said / TEMPERATURE, 1),
            reduction="batchmean",
        )
        loss = SOFT * TEMPERATURE**2 * soft + HARD * F.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def edgekd_loop(
    data: Data, feed: Feed, stored: TeacherOutputs, *, compiled: bool = False, **fields: Any
) -> Step:
    """The step of `edgekd.distill.trainer`, with its own classes."""
    settings = TrainSettings(epochs=EPOCHS, learning_rate=1e-3, augment=AUGMENT, **fields)
    objectives = (
        HardLabel(weight=HARD),
        LogitsKL(weight=SOFT, temperature=TEMPERATURE),
    )
    student = build_seeded(STUDENT, SPEC, 0).train()
    stepper = Stepper(
        student,
        settings,
        objectives,
        input_shape=SPEC.input_shape,
        teacher_shapes=stored.shapes,
        seed=0,
    )
    if compiled:
        compiled_model: nn.Module = torch.compile(student)
        stepper.model = compiled_model
    count = 0

    def step(position: int) -> None:
        nonlocal count
        indices = feed.indices(0, position)
        plain, labels = feed.read(indices)
        inputs = apply_view(plain, indices, AUGMENT, view=0, seed=0)
        said = stored.batch(0, indices)
        stepper.run(inputs, labels, said, step=count, rate_factor=1.0)
        count += 1

    return step


def timed_rounds(arms: dict[str, Step], rounds: int, steps: int) -> dict[str, list[int]]:
    """Nanoseconds of every step; the arms take turns, each round starts with another one."""
    names = list(arms)
    samples: dict[str, list[int]] = {name: [] for name in names}
    for name in names:
        for position in range(2):  # first calls choose kernels and allocate
            arms[name](position)
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            for position in range(steps):
                begun = time.perf_counter_ns()
                arms[name](position)
                samples[name].append(time.perf_counter_ns() - begun)
    return samples


def teacher_share_ms(teacher: EagerTeacher, data: Data, batch: int, rounds: int) -> float:
    """Milliseconds per training step that the stored teacher outputs cost."""
    inputs = torch.from_numpy(data.train.batch(np.arange(batch)))
    times = []
    with fast_layout(teacher.module):
        for _ in range(rounds + 1):
            begun = time.perf_counter_ns()
            teacher.taps(inputs, [LOGITS])
            times.append(time.perf_counter_ns() - begun)
    return statistics.median(times[1:]) / 1e6 * VIEWS / EPOCHS


def machine() -> dict[str, Any]:
    model = "unknown"
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((x.partition(":")[2].strip() for x in lines if "model name" in x), model)
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "native_bfloat16": sorted(NATIVE_BFLOAT16 & cpu_flags()),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "load_average": os.getloadavg(),
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--steps", type=int, default=8, help="of each arm in each round")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--compile", action="store_true", help="also time torch.compile")
    parser.add_argument("--smoke", action="store_true", help="one step of everything, no verdict")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "training_speed.json")
    args = parser.parse_args(arguments)
    if args.smoke:
        args.rounds, args.steps, args.batch = 1, 1, 16
    torch.set_num_threads(args.threads)

    data = make_data(args.batch * max(args.steps, 2))
    feed, teacher = Feed(data.train, args.batch, seed=0), EagerTeacher()
    with tempfile.TemporaryDirectory() as folder:
        stored = TeacherOutputs.open(
            Path(folder), teacher, data, augment=AUGMENT, epochs=1, progress=Silent()
        )
        float32 = {"precision": "float32"}
        arms: dict[str, Step] = {
            "plain eager float32, teacher in the loop": plain_loop(data, feed, teacher),
            "stored teacher outputs": edgekd_loop(
                data, feed, stored, channels_last=False, **float32
            ),
            "and channels last": edgekd_loop(data, feed, stored, **float32),
            "edgekd (and bfloat16 where native)": edgekd_loop(data, feed, stored),
        }
        compile_s = None
        if args.compile:
            begun = time.perf_counter()
            arms["edgekd with torch.compile"] = edgekd_loop(data, feed, stored, compiled=True)
            arms["edgekd with torch.compile"](0)
            compile_s = time.perf_counter() - begun
        samples = timed_rounds(arms, args.rounds, args.steps)
    share_ms = teacher_share_ms(teacher, data, args.batch, args.rounds)
    report = summary(samples, share_ms, compile_s, args.batch)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(report, indent=1) + "\n")
    print(report["markdown"])
    print(f"every sample: {args.out}")
    if args.smoke:
        return 0
    return 0 if report["ratio"] >= WANTED_RATIO else 1


def summary(
    samples: dict[str, list[int]], share_ms: float, compile_s: float | None, batch: int
) -> dict[str, Any]:
    medians = {name: statistics.median(times) / 1e6 for name, times in samples.items()}
    plain = next(iter(medians.values()))
    total = {n: m + (share_ms if i else 0.0) for i, (n, m) in enumerate(medians.items())}
    facts = machine()
    macs = [count_macs(build_seeded(f, SPEC, 0), SPEC.input_shape) for f in (TEACHER, STUDENT)]
    rows = [
        f"| {name} | {medians[name]:.1f} | {plain / medians[name]:.2f} "
        f"| {value:.1f} | {plain / value:.2f} |"
        for name, value in total.items()
    ]
    ratio = plain / total["edgekd (and bfloat16 where native)"]
    lines = [
        "| distillation step | median ms | times faster | with its share of the teacher, ms "
        "| times faster |",
        "|---|---|---|---|---|",
        *rows,
        "",
        f"Median of {len(next(iter(samples.values())))} steps of {batch} samples 28x28x1 each, "
        f"in turns; teacher {macs[0] / 1e6:.1f} M, student {macs[1] / 1e6:.2f} M "
        f"multiply-accumulates; {VIEWS} views over {EPOCHS} epochs. {facts['cpu']}, "
        f"{facts['threads']} threads, torch {facts['torch']}.",
    ]
    if compile_s is not None:
        lines.append(f"torch.compile took {compile_s:.0f} s before its first step.")
    return {
        "schema": 1,
        "ratio": ratio,
        "median_ms": medians,
        "teacher_share_ms": share_ms,
        "compile_s": compile_s,
        "macs": {"teacher": macs[0], "student": macs[1]},
        "machine": facts,
        "samples_ns": samples,
        "markdown": "\n".join(lines),
    }


if __name__ == "__main__":
    raise SystemExit(main())
