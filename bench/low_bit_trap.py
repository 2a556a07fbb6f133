"""The temperature trap of quantized distillation, and the detector that stops it.

    python bench/low_bit_trap.py --data ../shared/data       # about ten minutes on one slow core

Published for CIFAR-10 and a ResNet-20 student: distilled at T = 5 it gains a point in float, and
loses 11 with weights of 3 bits (DoReFa, Intel Distiller's recipe file). Here the recipe
bench/low_bit_trap.yaml is run up to its quantized students at several widths and temperatures,
once to the end and once with the detector on. Everything trained stays in runs/low_bit_trap/, so a
second call continues; the table goes to runs/low_bit_trap.json.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgekd.core.files import atomic_write
from edgekd.core.progress import Silent
from edgekd.core.stages import Run
from edgekd.profile.environment import environment
from edgekd.recipe import load_recipe
from edgekd.steps import learn, shrink, teach
from edgekd.steps.choose import TrainedArm
from edgekd.steps.job import open_job
from edgekd.tasks.sources.idx import Idx

ROOT = Path(__file__).resolve().parent.parent
RECIPE = ROOT / "bench" / "low_bit_trap.yaml"
TRAIN, TEST, SIDE = 12_000, 10_000, 14
QUANTIZERS = ("{name: minmax, bits: 3}", "{name: lsq, bits: 2}")
TEMPERATURES = (1.0, 2.0, 5.0)


class _Print(Silent):
    def say(self, message: str) -> None:
        print(message, flush=True)


def prepare(shared: Path, path: Path) -> None:
    """Average 2x2 pixels of the first samples of Fashion-MNIST."""
    if path.is_file():
        return
    data = Idx(folder=str(shared / "fashion-mnist"), validation=1000).load(Path.cwd())
    arrays = {}
    for name, split, count in (("train", data.train, TRAIN), ("test", data.test, TEST)):
        images = split.batch(np.arange(count)).reshape(count, SIDE, 2, SIDE, 2).mean((2, 4))
        arrays |= {f"x_{name}": images[..., None], f"y_{name}": split.labels[:count]}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part.npz")
    np.savez(partial, **arrays)
    partial.replace(path)


def arms(runs: Path, *overrides: str) -> tuple[dict[str, TrainedArm], str]:
    """The recipe's students by the name of their arm, and the arm that is kept."""
    data = f"data.path={(runs / 'fashion14.npz').resolve()}"
    recipe, folder = load_recipe(RECIPE, overrides=[data, *overrides])
    progress = _Print()
    with Run(runs, progress) as run:
        job = open_job(recipe, folder, run, progress)
        taught = teach.teacher(job)
        floats = learn.float_students(job, taught)
        (group,) = shrink.quantized_students(job, floats.kept, taught).values()
    found = {arm.name: arm for arm in (floats.control, floats.distilled, *group.arms)}
    return found, group.kept.name


def row(runs: Path, quantizer: str, temperature: float) -> dict[str, Any]:
    """One width and temperature: trained to the end, and with the detector."""
    asked = (
        f"quantize.weights={quantizer}",
        f"quantize.objectives.1.temperature={temperature}",
    )
    whole, kept_blindly = arms(runs, *asked, "quantize.stop_after=null")
    watched, kept = arms(runs, *asked)
    tests = {name: arm.students[0].test for name, arm in whole.items()}
    return {
        "quantizer": quantizer,
        "temperature": temperature,
        **tests,
        "epochs_seen": len(watched["quantized_distillation"].students[0].history),
        "stopped": watched["quantized_distillation"].stopped,
        "kept_blindly": kept_blindly,
        "kept": kept,
        "kept_test": watched[kept].students[0].test,
    }


def markdown(rows: list[dict[str, Any]]) -> str:
    head = (
        "| weights | T | post-training | labels alone | distilled to the end "
        "| against labels alone | the detector | kept |"
    )
    lines = [head, "| --- | ---: | ---: | ---: | ---: | ---: | --- | --- |"]
    for r in rows:
        gain = 100 * (r["quantized_distillation"] - r["quantized_control"])
        seen = r["epochs_seen"]
        detector = f"stopped it after epoch {seen}" if r["stopped"] else "let it end"
        lines.append(
            f"| `{r['quantizer']}` | {r['temperature']:g} | {r['post_training']:.2%} "
            f"| {r['quantized_control']:.2%} | {r['quantized_distillation']:.2%} | {gain:+.2f} pt "
            f"| {detector} | {r['kept'].replace('_', ' ')}, {r['kept_test']:.2%} |"
        )
    machine = environment()["machine"]
    first = rows[0]
    lines += [
        "",
        "Test accuracy, one seed, 8-bit activations. The float student: "
        f"{first['control']:.2%} on labels alone, {first['distilled']:.2%} distilled at T = 5. "
        f"{TRAIN - 3000:,} train and "
        f"3,000 validation samples of Fashion-MNIST at {SIDE}x{SIDE}. Made on {machine['cpu']}, "
        f"torch {torch.__version__}.",
    ]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of fashion-mnist/")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "low_bit_trap")
    args = parser.parse_args(arguments)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    prepare(args.data, args.runs / "fashion14.npz")
    rows = []
    for quantizer in QUANTIZERS:
        for temperature in TEMPERATURES:
            rows.append(row(args.runs, quantizer, temperature))
            text = markdown(rows)
            atomic_write(
                args.runs.with_suffix(".json"), json.dumps({"rows": rows, "markdown": text})
            )
            print(text.splitlines()[1 + len(rows)], flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
