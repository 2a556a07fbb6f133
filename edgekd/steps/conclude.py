"""The end: budgets judged, everything put into one report, and the files a user takes away."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from edgekd.core.config import dump_yaml
from edgekd.core.files import atomic_path, atomic_write, explained_os_errors
from edgekd.core.hashing import sha256_file, sha256_json
from edgekd.profile.environment import environment
from edgekd.report import budgets, html, model, verdict
from edgekd.steps import mix, points
from edgekd.steps.cost import reported_cost
from edgekd.steps.learn import FloatArms, build_student
from edgekd.steps.target_result import delivered, target_result

if TYPE_CHECKING:
    from edgekd.profile.explain import Explanation
    from edgekd.steps.choose import Choice, TrainedArm
    from edgekd.steps.job import Job
    from edgekd.steps.measure import Figures
    from edgekd.steps.prove import Proof
    from edgekd.steps.ship import Shipment
    from edgekd.steps.shrink import IntegerArms
    from edgekd.steps.teach import ScoredTeacher

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
        target_result(
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
    deliveries = {delivered(folder, s): s.artifact for s in shipment.artifacts}
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
