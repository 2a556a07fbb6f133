"""What differentiable quantization of a million weights costs, forward and backward.

    python bench/bench_points.py            # a few seconds on one core
    python bench/bench_points.py --smoke    # one turn of each: does it still run?

4 bits, so 16 points for the tensor; in blocks of 256 weights (4,096 of them) and in 256 blocks
(4,096 weights each); weights fixed, as in the paper, and trained as well. The points move before
each turn, so every turn assigns anew. Beside them a plain float operation of the same size,
``weight * gain`` with gradients for both. All arms run in turns on one thread, and the clock is
the process's CPU time. Every sample is kept in runs/points.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from bench_fake_quant import machine, timed_rounds

from edgekd.core.types import PerBlock
from edgekd.quantize.quantizers.differentiable import Differentiable

ROOT = Path(__file__).resolve().parent.parent
WEIGHTS = 1 << 20
WANTED_MS = 25.0
FLOAT = "float: weight * gain"


def drawn(seed: int) -> torch.Tensor:
    return torch.randn(1024, WEIGHTS // 1024, generator=torch.Generator().manual_seed(seed))


def plain() -> Callable[[], None]:
    weight, gain = drawn(0).requires_grad_(), torch.ones((), requires_grad=True)
    grad = drawn(1)

    def turn() -> None:
        weight.grad = gain.grad = None
        (weight * gain).backward(grad)

    return turn


def points(weights: str, size: int) -> Callable[[], None]:
    weight = torch.nn.Parameter(drawn(0), requires_grad=weights == "joint")
    quantizer = Differentiable.model_validate({"bits": 4, "weights": weights})
    fake, grad = quantizer.fake_quant(weight, PerBlock(size=size)), drawn(1)

    def turn() -> None:
        weight.grad = fake.shifts.grad = None
        with torch.no_grad():
            fake.shifts.add_(1e-4)
        fake(weight).backward(grad)

    return turn


def arms() -> dict[str, Callable[[], None]]:
    return {
        FLOAT: plain(),
        "fixed weights, blocks of 256": points("fixed", 256),
        "fixed weights, 256 blocks": points("fixed", WEIGHTS // 256),
        "joint weights, blocks of 256": points("joint", 256),
        "joint weights, 256 blocks": points("joint", WEIGHTS // 256),
    }


def summary(samples: dict[str, list[int]]) -> dict[str, Any]:
    least = {name: min(times) / 1e6 for name, times in samples.items()}
    medians = {name: statistics.median(times) / 1e6 for name, times in samples.items()}
    facts = machine()
    lines = [
        "| forward and backward | least CPU ms | median CPU ms | median, times float |",
        "|---|---|---|---|",
        *(
            f"| {name} | {least[name]:.1f} | {medians[name]:.1f} |"
            f" {medians[name] / medians[FLOAT]:.1f} |"
            for name in samples
        ),
        "",
        f"{len(samples[FLOAT])} turns of {WEIGHTS:,} weights at 4 bits. {facts['cpu']}, "
        f"{facts['threads']} threads, torch {facts['torch']}.",
    ]
    return {
        "schema": 1,
        "least_ms": least,
        "median_ms": medians,
        "machine": facts,
        "samples_ns": samples,
        "markdown": "\n".join(lines),
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=100, help="turns of each arm")
    parser.add_argument("--smoke", action="store_true", help="one turn of each, no verdict")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "points.json")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    report = summary(timed_rounds(arms(), 1 if args.smoke else args.rounds))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(report, indent=1) + "\n")
    print(report["markdown"])
    print(f"every sample: {args.out}")
    slow = [name for name, median in report["median_ms"].items() if median > WANTED_MS]
    return 1 if slow and not args.smoke else 0


if __name__ == "__main__":
    raise SystemExit(main())
