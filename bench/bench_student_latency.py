"""The paper's three students in int8 beside their float selves: how much faster, in which kernels.

    python bench/bench_student_latency.py            # some minutes on one core
    python bench/bench_student_latency.py --smoke    # seconds: does it still run?

Each student is exported in float, in int8 and with 2-bit weights that both runtimes unpack into
their int8 kernels; all files of a student are timed in turns in one process, one thread, one
image. Weights are random: no kernel takes longer for one than for another, and what they compute
is not looked at here. Every sample is kept in runs/student_latency.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.backends._contract import BACKENDS
from edgekd.backends._kernels import count_kernels
from edgekd.core.hashing import sha256_file
from edgekd.core.progress import Silent
from edgekd.core.target import load_target
from edgekd.core.types import Profile
from edgekd.export.onnx_file import float_model, quantized_model
from edgekd.profile.environment import environment
from edgekd.profile.measure import MeasureRule, Subject, measure
from edgekd.profile.percentiles import percentiles
from edgekd.quantize.convert import QuantizationAware
from edgekd.quantize.settings import QuantizeSettings
from edgekd.students._build import build_seeded
from edgekd.students._contract import NetSpec
from edgekd.students.convnet import ConvNet

ROOT = Path(__file__).resolve().parent.parent
SPEC = NetSpec((3, 32, 32), 10)
STUDENTS = {
    "75-50-50-25": ConvNet(stages=((75, 50), (50, 25)), kernel=5, hidden=(500,)),
    "50-25-25-10": ConvNet(stages=((50, 25), (25, 10)), kernel=5, hidden=(400,)),
    "25-10-10-5": ConvNet(stages=((25, 10), (10, 5)), kernel=5, hidden=(300,)),
}
RUNTIMES = ("onnxruntime", "openvino")
FORMS = {"float": None, "int8": 8, "2 bits": 2}


def files(student: ConvNet, folder: Path) -> list[tuple[str, str, Path]]:
    """(runtime, form, file) of one student."""
    net = build_seeded(student, SPEC, 0).eval()
    images = np.random.default_rng(0).normal(size=(64, *SPEC.input_shape)).astype(np.float32)
    found = []
    for runtime in RUNTIMES:
        for form, bits in FORMS.items():
            target = load_target(f"x86-{runtime}-{'fp32' if bits is None else 'int8'}")
            if target.scheme is None or bits is None:
                model = float_model(net, SPEC.input_shape, batch_size=1, opset=target.opset)
            else:
                settings = QuantizeSettings.model_validate(
                    {"weights": {"name": "mse", "bits": bits}}
                )
                aware = QuantizationAware(
                    net, settings, target.scheme, images, learned=False, seed=0
                )
                model = quantized_model(
                    aware.freeze(), target.scheme, SPEC.input_shape, batch_size=1
                )
            backend = BACKENDS.get(runtime)()
            name = f"{runtime}-{form.replace(' ', '-')}"
            found.append((runtime, form, backend.build(model, target, folder / name)))
    return found


def timed(student: ConvNet, rule: MeasureRule, folder: Path) -> list[dict[str, Any]]:
    images = np.random.default_rng(1).normal(size=(8, 1, *SPEC.input_shape)).astype(np.float32)
    feeds = [{"input": image} for image in images]
    made = files(student, folder)
    subjects, sessions = [], []
    for runtime, form, path in made:
        target = load_target(f"x86-{runtime}-{'fp32' if form == 'float' else 'int8'}")
        session = BACKENDS.get(runtime)().open(path, target, threads=1)
        sessions.append(session)
        subjects.append(Subject(f"{runtime} {form}", session, feeds, sha256_file(path), target))
    profiles = measure(subjects, rule, inputs="random images", progress=Silent())
    rows = []
    for (runtime, form, path), subject, profile in zip(made, subjects, profiles, strict=True):
        layers = BACKENDS.get(runtime)().layers(path, subject.target, feeds[0], threads=1)
        count = count_kernels(layers)
        rows.append(
            {
                "runtime": runtime,
                "form": form,
                "bytes": path.stat().st_size,
                "int8": count.int8,
                "float": count.float,
                "unfused": count.unfused,
                **_figures(profile),
                "samples_ns": profile.samples_ns,
            }
        )
    for session in sessions:
        session.close()
    return rows


def _figures(profile: Profile) -> dict[str, Any]:
    found = percentiles(profile)
    return {"p50_ms": found.p50.certified, "p90_ms": found.p90.certified, "n": found.p50.n}


def summary(found: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    lines = [
        "| student | runtime | form | file | p50 certified | times faster than float | kernels |",
        "|---|---|---|---:|---:|---:|---|",
    ]
    for student, rows in found.items():
        base = {row["runtime"]: row["p50_ms"] for row in rows if row["form"] == "float"}
        for row in rows:
            kernels = f"{row['int8']} int8, {row['float']} float, {row['unfused']} Q/DQ unfused"
            faster = base[row["runtime"]] / row["p50_ms"]
            lines.append(
                f"| {student} | {row['runtime']} | {row['form']} | {row['bytes'] / 1024:.1f} KiB "
                f"| {row['p50_ms'] * 1e3:.0f} µs (n = {row['n']:,}) | {faster:.2f} | {kernels} |"
            )
    facts = environment()
    versions = facts["versions"]
    lines += [
        "",
        f"One 32x32 image, one thread, all six files of a student in turns. "
        f"{facts['machine']['cpu']}, {', '.join(facts['machine']['cpu_flags'])}; onnxruntime "
        f"{versions['onnxruntime']}, openvino {versions['openvino']}.",
    ]
    return {"schema": 1, "rows": found, "environment": facts, "markdown": "\n".join(lines)}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="timed of each file, at least")
    parser.add_argument("--smoke", action="store_true", help="one small student, a moment each")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "student_latency.json")
    args = parser.parse_args(arguments)
    students = dict(list(STUDENTS.items())[-1:]) if args.smoke else STUDENTS
    rule = MeasureRule(percentile=90, min_duration_s=0.02 if args.smoke else args.seconds)
    found = {}
    for name, student in students.items():
        with tempfile.TemporaryDirectory() as folder:
            found[name] = timed(student, rule, Path(folder))
    report = summary(found)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(report) + "\n")
    print(report["markdown"])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
