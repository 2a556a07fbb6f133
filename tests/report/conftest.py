"""Reports as a run would write them; built by hand, so that a test may rely on every number."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
from pydantic import TypeAdapter

from edgekd.core.budget import BudgetText
from edgekd.core.types import Conditions
from edgekd.numerics.statistics import (
    certified_percentile,
    empirical_percentile,
    needed_samples,
)
from edgekd.report.budgets import closest, judge
from edgekd.report.model import (
    Accuracy,
    Arm,
    Figure,
    Kernels,
    Latency,
    Measured,
    Net,
    Parity,
    Report,
    Rung,
    StageLine,
    Storage,
    TargetResult,
)

BUDGET = TypeAdapter(BudgetText)
CODED = {"weights": 15_000, "stored_bytes": 15_400, "huffman_bytes": 14_100}
TEACHER_BYTES, STUDENT_BYTES = 712_448, 28_672
BUDGETS = ("p90<=0.25ms", "size<=64KiB", "peak_memory<=400MiB", "accuracy_drop<=1pt")


def conditions(interleaved_with: int = 1) -> Conditions:
    return Conditions(
        batch_size=1,
        threads=1,
        warm_up="until the median of 20 settles within 1 %",
        duration="3 s or 662 samples, whichever is later",
        clock="perf_counter_ns",
        power_mode="as found",
        interleaved_with=interleaved_with,
        inputs="64 test samples in turn",
    )


def latency(samples_ms: list[float]) -> Latency:
    figures = {}
    for name in ("p50", "p90", "p95", "p99"):
        percentile, n = float(name[1:]), len(samples_ms)
        certified = certified_percentile(samples_ms, percentile)
        refusal = f"needs {needed_samples(percentile)} samples, has {n}"
        figures[name] = Figure(
            certified=certified,
            empirical=empirical_percentile(samples_ms, percentile),
            n=n,
            reason=refusal if certified is None else None,
        )
    return Latency(**figures)


def measured(
    name: str,
    target: str,
    *,
    median_ms: float,
    size_bytes: int,
    n: int = 1024,
    spread: float = 0.06,
    seed: int = 0,
    memory: float | None = 96.4,
) -> Measured:
    rng = random.Random(seed)
    samples = [
        median_ms * math.exp(rng.gauss(0, spread)) * (2.2 if rng.random() < 0.012 else 1.0)
        for _ in range(n)
    ]
    return Measured(
        name=name,
        target=target,
        artifact=f"artifacts/{'teacher-' if 'teacher' in name else ''}{target[:40]}/model.onnx",
        sha256=f"{seed:02x}" + "9f3c4be07a" * 6 + "ab",
        size_bytes=size_bytes,
        peak_memory_mib=memory,
        runtime_memory_mib=None if memory is None else memory - 9.3,
        latency_ms=latency(samples),
        conditions=conditions(),
        profile=f"profiles/{target[:40]}-{name[:20]}.json",
        samples_ms=tuple(samples[i * n // min(n, 400)] for i in range(min(n, 400))),
        cv=spread if spread > 0.1 else 0.11,
        source="measured",
    )


def ladder(runtime: str, score: float, *, ok: bool = True) -> tuple[Rung, ...]:
    def rung(name: str, against: str | None, top: float, mean: float, **more: object) -> Rung:
        fields: dict[str, object] = {
            "max_abs": top, "mean_abs": mean, "agreement": 1.0, "score": score, "n": 360,
            "ok": True,
        }  # fmt: skip
        return Rung(name=name, against=against, **(fields | more))  # type: ignore[arg-type]

    nothing = dict.fromkeys(("max_abs", "mean_abs", "agreement"))
    return (
        Rung(**nothing, name="torch float", against=None, score=0.98889, n=360, ok=None),
        rung("torch fake-quant", "torch float", 1.2044, 0.11871, agreement=0.99722, ok=None),
        rung("ONNX reference", "torch fake-quant", 0.0612, 3.1e-5),
        rung(
            runtime,
            "ONNX reference",
            0.0918,
            4.12e-4,
            ok=ok,
            agreement=1.0 if ok else 0.95278,
            first_difference=None
            if ok
            else "stage2.block1.conv2 (Conv): mean 0.31, tolerance 0.02",
        ),
    )


def target(
    name: str = "x86-onnxruntime-int8",
    *,
    runtime: str = "ONNX Runtime",
    version: str = "1.23.2",
    precision: str = "int8",
    median_ms: float = 0.0312,
    score: float = 0.98611,
    size_bytes: int = STUDENT_BYTES,
    budgets: tuple[str, ...] = BUDGETS,
    n: int = 1024,
    baseline: bool = True,
    kernels: Kernels | None = None,
    seed: int = 1,
    spread: float = 0.06,
    memory: float | None = 96.4,
    parity_ok: bool = True,
    description: str = "",
) -> TargetResult:
    own = measured(
        name, name, median_ms=median_ms, size_bytes=size_bytes, n=n, seed=seed, spread=spread,
        memory=memory,
    )  # fmt: skip
    teacher = (
        measured("teacher", name, median_ms=0.171, size_bytes=TEACHER_BYTES, n=n, seed=seed + 50)
        if baseline
        else None
    )
    results = judge(
        [BUDGET.validate_python(text) for text in budgets],
        latency=own.latency_ms,
        size_bytes=size_bytes,
        peak_memory_mib=memory,
        accuracy_drop_pt=(0.98889 - score) * 100,
    )
    own_p90, teacher_p90 = (
        own.latency_ms.p90.certified,
        teacher and teacher.latency_ms.p90.certified,
    )
    int8 = precision == "int8"
    convolutions = (
        {
            "name": f"/stage{i // 3 + 1}/block{i % 3}/conv/Conv_quant",
            "op": "QLinearConv" if int8 else "FusedConv",
            "role": "matmul",
            "precision": precision,
            "time_us": 1.1 + (i * 7 % 5) * 1.7,
            "reason": "",
        }
        for i in range(9)
    )
    entry = {"name": "input_QuantizeLinear", "op": "QuantizeLinear", "role": "other",
             "precision": "other", "time_us": None, "reason": ""}  # fmt: skip
    return TargetResult(
        target=name,
        description=description or f"x86-64 with {runtime}, {precision}",
        backend=runtime.lower().replace(" ", ""),
        runtime_version=version,
        precision=precision,
        met=all(b.met for b in results),
        budgets=results,
        measured=own,
        baseline=teacher,
        speedup_p90=teacher_p90 / own_p90 if own_p90 and teacher_p90 else None,
        speedup_p50=0.171 / median_ms if baseline else None,
        accuracy=Accuracy(teacher=0.98889, control=0.97593, student_float=0.98796, artifact=score),
        kernels=kernels or Kernels(int8=10 if int8 else 0, float=0 if int8 else 10, unfused=0),
        layers=(*convolutions, entry),
        ladder=ladder(runtime, score, ok=parity_ok),
        parity=Parity(max_abs=0.0918, mean_abs=4.12e-4, agreement=1.0 if parity_ok else 0.95278),
        storage=Storage(zstd_bytes=17_000, **(CODED if int8 else {})),
    )


def arms() -> tuple[Arm, ...]:
    def arm(name: str, title: str, *scores: float, **more: object) -> Arm:
        fields: dict[str, object] = {
            "chosen_seed": None, "note": "", "train_s": 21.4,
            "validation": tuple(s - 0.002 for s in scores),
        }  # fmt: skip
        return Arm(name=name, title=title, scores=scores, **(fields | more))  # type: ignore[arg-type]

    return (
        arm(
            "control",
            "control (no teacher, float)",
            0.97222,
            0.97778,
            0.97778,
            note="Same student, same data and steps, trained on the labels alone.",
        ),
        arm(
            "distilled",
            "distilled (float)",
            0.98611,
            0.98889,
            0.98889,
            chosen_seed=1,
            note="Start of the quantized arm: seed 1 is the best on the validation split.",
        ),
        arm(
            "post_training",
            "post-training quantization (int8)",
            0.98056,
            0.98333,
            0.98611,
            train_s=0.4,
            note="Ranges from 256 calibration samples of the train split; 0.3 points below "
            "quantized distillation on validation, so it is not deployed.",
        ),
        arm(
            "quantized_distillation",
            "quantized distillation (int8)",
            0.98333,
            0.98611,
            0.98889,
            chosen_seed=1,
            train_s=17.0,
            note="Deployed: best on the validation split.",
        ),
    )


def report(targets: tuple[TargetResult, ...] | None = None, **changes: object) -> Report:
    if targets is None:
        targets = (
            target(),
            target("x86-openvino-int8", runtime="OpenVINO", version="2025.3.0", median_ms=0.0401,
                   seed=3, size_bytes=31_744, memory=171.8),
        )  # fmt: skip
    fields: dict[str, object] = {
        "name": "digits",
        "met": all(t.met for t in targets),
        "closest": closest(targets),
        "created_utc": "2025-11-20T20:36:05+00:00",
        "metric": "accuracy",
        "data": "handwritten digits of scikit-learn: 1,797 images 1×8×8, 10 classes; "
        "train 1,077, validation 360, test 360, stratified",
        "teacher": Net(
            title="resnet, width 32, 3 stages",
            parameters=176_426,
            macs=6_103_552,
            float_bytes=TEACHER_BYTES,
        ),
        "student": Net(
            title="resnet, width 12, 2 stages", parameters=19_846, macs=684_480, float_bytes=81_920
        ),
        "teacher_score": 0.98889,
        "teacher_validation": 0.99167,
        "arms": arms(),
        "targets": targets,
        "student_size_ratio": TEACHER_BYTES / max(t.measured.size_bytes for t in targets),
        "macs_ratio": 6_103_552 / 684_480,
        "skipped": {},
        "stages": (
            StageLine(name="data", reused=False, reason="first run", seconds=0.21,
                      key="5be1" * 16),
            StageLine(name="teacher", reused=True, reason="nothing it depends on changed",
                      seconds=0.0, key="c03a" * 16),
            StageLine(name="distill", reused=False, reason="distill.epochs changed",
                      seconds=64.2, key="77d0" * 16),
            StageLine(name="quantize", reused=False, reason="distill changed", seconds=17.9,
                      key="e1f9" * 16),
            StageLine(name="profile x86-onnxruntime-int8", reused=False, reason="quantize changed",
                      seconds=9.4, key="08c2" * 16),
        ),
        "warnings": (),
        "recipe": {
            "name": "digits",
            "data": {"source": {"name": "digits", "seed": 0}},
            "student": {"family": "resnet", "width": 12, "stages": [1, 1]},
            "distill": {
                "epochs": 40,
                "seeds": 3,
                "objectives": [
                    {"name": "hard_label", "weight": 0.1},
                    {"name": "logits_kl", "weight": 0.9, "temperature": 4.0},
                ],
            },
            "targets": [t.target for t in targets],
            "budgets": list(BUDGETS),
        },
        "command": "edgekd compress digits --set distill.epochs=40 --out runs/digits",
        "hashes": {
            "recipe": "1f" * 32, "data": "a9" * 32, "teacher": "0c" * 32, "student": "e4" * 32,
        },
        "environment": {
            "machine": "x86_64",
            "cpu": "Intel Xeon Platinum 8481C",
            "cores": 2,
            "cpu_flags": ["avx2", "avx512f", "avx512_vnni", "amx_int8"],
            "governor": "not readable",
            "load_1min": 0.42,
            "versions": {"edgekd": "0.1.0", "torch": "2.12.0", "onnxruntime": "1.23.2",
                         "openvino": "2025.3.0", "python": "3.11.9"},
        },
    }  # fmt: skip
    return Report(**(fields | changes))  # type: ignore[arg-type]


LONG = "/home/somebody/devices/edge-boxes/a-very-long-target-name-" + "that-goes-on-" * 4
HOSTILE = "<script>alert('x')</script>|`*[red]\"&"


def hard_report() -> Report:
    """Everything that can go wrong at once: missed, refused, unmeasured, noisy, hostile, long."""
    odd = target(
        LONG + HOSTILE,
        description=HOSTILE,
        median_ms=0.288,
        score=0.97,
        budgets=("p90<=0.25ms", "p99<=0.4ms", "size<=16KiB", "peak_memory<=64MiB",
                 "accuracy_drop<=1pt"),
        n=300,
        baseline=False,
        kernels=Kernels(
            int8=8,
            float=2,
            unfused=3,
            floats={
                "/head/fc/MatMul": "its output feeds a Softmax that this runtime keeps in float",
                HOSTILE: HOSTILE,
            },
        ),
        spread=0.38,
        memory=None,
        parity_ok=False,
    )  # fmt: skip
    few = target("x86-openvino-fp32", runtime="OpenVINO", precision="float32", n=20,
                 median_ms=0.05, size_bytes=81_920, budgets=("p90<=2ms",),
                 memory=170.2)  # fmt: skip
    return report(
        targets=(target(), odd, few, target("tiny-no-budget", budgets=(), size_bytes=900)),
        name=HOSTILE,
        data=HOSTILE,
        skipped={"stem.conv": "first layer kept in float by the recipe", HOSTILE: HOSTILE},
        warnings=("The machine was loaded while measuring (load 3.1 on 2 cores).", HOSTILE),
        command=f"edgekd compress '{HOSTILE}' " + "--set a.b=" + "c" * 200,
        recipe={"name": HOSTILE, "note": "x" * 300, "nested": {"a": [1, 2.5, None, True]}},
        environment={
            "cpu": HOSTILE,
            "flags": ["avx2"] * 60,
            "odd": None,
            "nested": {"x": {"y": 1}},
        },
        teacher=Net(title=HOSTILE, parameters=None, macs=None, float_bytes=None),
        student_size_ratio=None,
        macs_ratio=None,
        arms=arms()[:1],
    )


@pytest.fixture
def make_target() -> Callable[..., TargetResult]:
    return target


@pytest.fixture
def make_report() -> Callable[..., Report]:
    return report


@pytest.fixture(scope="session")
def met_report() -> Report:
    return report()


@pytest.fixture(scope="session")
def missed_report() -> Report:
    return hard_report()
