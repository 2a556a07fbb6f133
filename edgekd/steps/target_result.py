"""What the report says about one target: its figures, its budgets, and what its file takes."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np
import zstandard

from edgekd.profile.percentiles import coefficient_of_variation, percentiles
from edgekd.quantize.storage import weight_storage
from edgekd.report import budgets, model
from edgekd.steps.shrink import load_quantized

if TYPE_CHECKING:
    from pathlib import Path

    from edgekd.core.types import Profile
    from edgekd.profile.explain import Explanation
    from edgekd.profile.percentiles import Percentiles
    from edgekd.steps.job import Job
    from edgekd.steps.learn import FloatArms
    from edgekd.steps.measure import Figures
    from edgekd.steps.prove import Proof
    from edgekd.steps.ship import Shipment, Shipped
    from edgekd.steps.teach import ScoredTeacher

_ARTIFACTS = "artifacts"
_PICTURED_SAMPLES = 400
_ZSTD_LEVEL = 19


def target_result(
    job: Job,
    taught: ScoredTeacher,
    floats: FloatArms,
    shipment: Shipment,
    shipped: Shipped,
    proof: Proof,
    figures: dict[str, Figures],
    causes: dict[str, Explanation],
) -> model.TargetResult:
    """Judge one target, and put down all that was found about it."""
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


def delivered(folder: Path, shipped: Shipped) -> Path:
    """Where the user finds an artifact."""
    return folder / _ARTIFACTS / f"{shipped.target.name}{shipped.artifact.path.suffix}"


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
        path = delivered(job.run.folder, shipped)
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
