"""The end: budgets judged, everything put into one report, and the files a user takes away."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import zstandard

from edgekd.core.config import dump_yaml
from edgekd.core.files import atomic_path, atomic_write, explained_os_errors
from edgekd.core.hashing import sha256_file, sha256_json
from edgekd.profile.environment import environment
from edgekd.profile.percentiles import coefficient_of_variation, percentiles
from edgekd.quantize.storage import weight_storage
from edgekd.report import budgets, html, model, verdict
from edgekd.steps import mix, points
from edgekd.steps.cost import reported_cost
from edgekd.steps.learn import FloatArms, build_student
from edgekd.steps.shrink import load_quantized

if TYPE_CHECKING:
    from pathlib import Path

    from edgekd.core.types import Profile
    from edgekd.profile.explain import Explanation
    from edgekd.profile.percentiles import Percentiles
    from edgekd.steps.choose import Choice, TrainedArm
    from edgekd.steps.job import Job
    from edgekd.steps.measure import Figures
    from edgekd.steps.prove import Proof
    from edgekd.steps.ship import Shipment, Shipped
    from edgekd.steps.shrink import IntegerArms
    from edgekd.steps.teach import ScoredTeacher

ARTIFACTS = "artifacts"
_PICTURED_SAMPLES = 400
_ZSTD_LEVEL = 19
_TITLES = {
    "control": "control, float",
    "distilled": "distilled, float",
    "post_training": "post-training",
    "quantized_control": "quantized, labels only",
    "quantized_distillation": "quantized distillation",
}


def conclude(
    job: Job,
    taught: ScoredTeacher,
    floats: FloatArms,
    integers: dict[str, IntegerArms],
    shipment: Shipment,
    proofs: dict[str, Proof],
    figures: dict[str, Figures],
    causes: dict[str, Explanation],
    command: str,
) -> model.Report:
    """Judge every target and assemble the report."""
    targets = tuple(
        _target(
            job, taught, floats, shipment, shipped, proofs[shipped.target.name], figures, causes
        )
        for shipped in shipment.artifacts
    )
    student = build_student(job, job.recipe.seed)
    cost = reported_cost(student, job.spec.input_shape, title="student")
    teacher_bytes = _float_bytes(shipment, "teacher")
    largest = max(s.artifact.size_bytes for s in shipment.artifacts)
    recipe = job.recipe.as_written()
    return model.Report(
        name=job.recipe.name,
        met=all(t.met for t in targets),
        closest=budgets.closest(targets),
        created_utc=datetime.now(UTC).isoformat(timespec="seconds"),
        metric=job.task.metric,
        data=job.data.description,
        teacher=model.Net(
            title=taught.teacher.description,
            parameters=taught.parameters,
            macs=taught.macs,
            float_bytes=teacher_bytes,
        ),
        student=model.Net(
            title=str(recipe["student"]["name"]),
            parameters=cost.parameters,
            macs=cost.macs,
            float_bytes=_float_bytes(shipment, "student_float"),
        ),
        teacher_score=taught.test,
        teacher_validation=taught.validation,
        arms=_arms(floats, integers),
        targets=targets,
        student_size_ratio=None if teacher_bytes is None else teacher_bytes / largest,
        macs_ratio=taught.macs / cost.macs if taught.macs and cost.macs else None,
        skipped=_skipped(proofs),
        mixed=tuple(
            mix.reported(job, arms.allocation, key if len(integers) > 1 else "")
            for key, arms in integers.items()
            if arms.allocation is not None
        ),
        points=tuple(
            points.reported(job, arms.points, key if len(integers) > 1 else "")
            for key, arms in integers.items()
            if arms.points
        ),
        stages=tuple(
            model.StageLine(
                name=s.name, reused=s.reused, reason=s.reason, seconds=s.seconds, key=s.key
            )
            for s in job.run.stages
        ),
        warnings=(
            *filter(None, (taught.warning, cost.warning)),
            *shipment.warnings,
            *(f"Distillation into few bits was {s}." for s in _given_up(integers)),
            *_held(job),
            *_warnings(targets),
        ),
        recipe=recipe,
        command=command,
        hashes={
            "recipe": sha256_json(recipe),
            "data": job.data.fingerprint,
            "teacher": taught.teacher.sha256,
            **{
                f"student ({s.target.name})": s.student.sha256
                for s in shipment.artifacts
                if s.student is not None
            },
        },
        environment=environment(),
    )


def write(job: Job, report: model.Report, shipment: Shipment) -> None:
    """Write the artifacts, the recipe as it ran, and the report's three files.

    All texts are made before the first file is touched, and an old verdict goes before a file
    that it speaks of does: whatever stops this half-way, no verdict is left that is not true.
    """
    folder = job.run.folder
    last = folder / "verdict.json"
    texts = {
        folder / "recipe.yaml": dump_yaml(report.recipe),
        folder / "report.json": report.to_json(),
        folder / "report.html": html.render(report),
        last: verdict.verdict(report).to_json(),
    }
    deliveries = {_delivered(folder, s): s.artifact for s in shipment.artifacts}
    for path, artifact in deliveries.items():
        if path.is_file() and sha256_file(path) == artifact.sha256:
            continue
        with explained_os_errors(last):
            last.unlink(missing_ok=True)
        with atomic_path(path) as temp:
            shutil.copyfile(artifact.path, temp)
    for path, text in texts.items():
        atomic_write(path, text)
    job.run.ledger.append("concluded", met=report.met)


def _target(
    job: Job,
    taught: ScoredTeacher,
    floats: FloatArms,
    shipment: Shipment,
    shipped: Shipped,
    proof: Proof,
    figures: dict[str, Figures],
    causes: dict[str, Explanation],
) -> model.TargetResult:
    target = shipped.target
    measured = _measured(job, shipped, figures[shipped.name])
    teacher = shipment.baseline(shipped, "teacher")
    baseline = None if teacher is None else _measured(job, teacher, figures[teacher.name])
    twin = shipment.baseline(shipped, "student_float")
    student_float = None if twin is None else _measured(job, twin, figures[twin.name])
    last = proof.rungs[-1]
    assert shipped.student is not None
    accuracy = model.Accuracy(
        teacher=taught.test,
        control=float(np.mean([s.test for s in floats.control.students])),
        student_float=floats.kept.of_seed(shipped.student.seed).test,
        artifact=last.score,
    )
    results = budgets.judge(
        job.recipe.budgets,
        latency=measured.latency_ms,
        size_bytes=measured.size_bytes,
        peak_memory_mib=measured.peak_memory_mib,
        accuracy_drop_pt=100 * (taught.test - last.score),
    )
    return model.TargetResult(
        target=target.name,
        description=target.description,
        backend=target.backend,
        runtime_version=proof.runtime_version,
        precision=target.precision,
        met=all(r.met for r in results),
        budgets=results,
        measured=measured,
        baseline=baseline,
        student_float=student_float,
        speedup_p90=_ratio(baseline, measured, "p90"),
        speedup_p50=_ratio(baseline, measured, "p50"),
        accuracy=accuracy,
        kernels=model.Kernels(**asdict(proof.kernels)),
        layers=tuple(asdict(layer) for layer in proof.layers),
        ladder=tuple(model.Rung(**asdict(r)) for r in proof.rungs),
        parity=model.Parity(
            max_abs=last.max_abs or 0.0,
            mean_abs=last.mean_abs or 0.0,
            agreement=1.0 if last.agreement is None else last.agreement,
        ),
        storage=_storage(job, shipped),
        options=target.options,
        explanation=_explanation(causes.get(target.name)),
    )


def _explanation(found: Explanation | None) -> model.Explanation | None:
    if found is None:
        return None
    floats, integers = found.first.categories, found.second.categories
    return model.Explanation(
        spent=tuple(
            model.Spent(
                on=name,
                student_float_us=floats[name].time_us,
                artifact_us=integers[name].time_us,
            )
            for name in floats
        ),
        findings=tuple(model.Finding(**asdict(finding)) for finding in found.findings),
        notes=found.notes,
    )


def _storage(job: Job, shipped: Shipped) -> model.Storage:
    zstd_bytes = len(zstandard.compress(shipped.artifact.path.read_bytes(), _ZSTD_LEVEL))
    if shipped.target.scheme is None or shipped.student is None:
        return model.Storage(zstd_bytes=zstd_bytes)
    counted = weight_storage(load_quantized(job, shipped.student))
    return model.Storage(zstd_bytes=zstd_bytes, **asdict(counted))


def _measured(job: Job, shipped: Shipped, figure: Figures) -> model.Measured:
    samples = np.asarray(figure.profile.samples_ns, np.float64) / 1e6
    picked = samples[np.linspace(0, len(samples) - 1, _PICTURED_SAMPLES).astype(int)]
    path = shipped.artifact.path
    if shipped.role == "artifact":
        path = _delivered(job.run.folder, shipped)
    assert figure.profile.source != "predicted"
    return model.Measured(
        name=shipped.name,
        target=shipped.target.name,
        artifact=str(path.relative_to(job.run.folder)),
        sha256=shipped.artifact.sha256,
        size_bytes=shipped.artifact.size_bytes,
        peak_memory_mib=figure.peak_memory_mib,
        runtime_memory_mib=figure.runtime_memory_mib,
        latency_ms=_latency(percentiles(figure.profile)),
        conditions=figure.profile.conditions,
        profile=str(figure.path.relative_to(job.run.folder)),
        samples_ms=tuple(float(x) for x in (picked if len(samples) > len(picked) else samples)),
        cv=coefficient_of_variation(figure.profile),
        source=figure.profile.source,
        place=_place(figure.profile),
    )


def _place(profile: Profile) -> str:
    """Where a profile was made, in words."""
    transport = profile.environment.get("transport")
    return (
        f"{profile.environment['machine']['cpu']}, over {transport}"
        if transport
        else ("this machine")
    )


def _latency(found: Percentiles) -> model.Latency:
    return model.Latency(**{k: model.Figure(**v) for k, v in asdict(found).items()})


def _ratio(
    baseline: model.Measured | None, measured: model.Measured, percentile: str
) -> float | None:
    """Certified over certified; None where either is refused."""
    if baseline is None:
        return None
    above = getattr(baseline.latency_ms, percentile).certified
    below = getattr(measured.latency_ms, percentile).certified
    return None if above is None or below is None else above / below


def _arms(floats: FloatArms, integers: dict[str, IntegerArms]) -> tuple[model.Arm, ...]:
    arms = [_arm(a, floats.choice) for a in (floats.control, floats.distilled)]
    several = len(integers) > 1
    for key, group in integers.items():
        arms += [_arm(arm, group.choice, scheme=key if several else "") for arm in group.arms]
    return tuple(arms)


def _arm(arm: TrainedArm, choice: Choice, *, scheme: str = "") -> model.Arm:
    kept = arm is choice.kept
    decided = f"kept: {choice.reason}" if kept else arm.stopped or "not kept"
    return model.Arm(
        name=arm.name,
        title=_TITLES[arm.name] + (f", {scheme}" if scheme else ""),
        scores=tuple(s.test for s in arm.students),
        validation=tuple(s.validation for s in arm.students),
        chosen_seed=arm.best.seed if kept else None,
        note="; ".join(filter(None, (decided, arm.note, _oscillation(arm)))),
        train_s=sum(s.train_s for s in arm.students),
    )


def _oscillation(arm: TrainedArm) -> str:
    """How many weights still flip between two codes, where somebody looked."""
    seen = [(s.oscillating, s.frozen) for s in arm.students]
    if any(a is None or b is None for a, b in seen):
        return ""
    flipping, frozen = (100 * float(np.mean(x)) for x in zip(*seen, strict=True))
    return f"{flipping:.2f} % of the weights oscillate at the end, {frozen:.2f} % are frozen"


def _given_up(integers: dict[str, IntegerArms]) -> list[str]:
    return [arm.stopped for group in integers.values() for arm in group.arms if arm.stopped]


def _held(job: Job) -> list[str]:
    """What became of targets whose CPU cannot honour 8-bit weights."""
    held = [(t.name, t.scheme.held) for t in job.targets if t.scheme is not None]
    return [f"{target}: weights have {why}." for target, why in held if why]


def _warnings(targets: tuple[model.TargetResult, ...]) -> list[str]:
    return [
        f"{target.target}: {target.kernels.float} of "
        f"{target.kernels.float + target.kernels.int8} convolutions and matrix products "
        "run in float."
        for target in targets
        if target.precision == "int8" and target.kernels.float
    ]


def _skipped(proofs: dict[str, Proof]) -> dict[str, str]:
    """Layers left in float; a target is named only where targets differ."""
    found: dict[str, dict[str, str]] = {}
    for target, proof in proofs.items():
        for layer, reason in proof.skipped.items():
            found.setdefault(layer, {})[target] = reason
    lines = {}
    for layer, reasons in found.items():
        same = len(reasons) == len(proofs) and len(set(reasons.values())) == 1
        lines[layer] = (
            next(iter(reasons.values()))
            if same
            else "; ".join(f"{target}: {reason}" for target, reason in reasons.items())
        )
    return lines


def _float_bytes(shipment: Shipment, role: str) -> int | None:
    sizes = [b.artifact.size_bytes for b in shipment.baselines if b.role == role]
    return min(sizes) if sizes else None


def _delivered(folder: Path, shipped: Shipped) -> Path:
    return folder / ARTIFACTS / f"{shipped.target.name}{shipped.artifact.path.suffix}"
