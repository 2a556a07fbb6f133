"""``verdict.json``: the contract with other programs.

It has its own models, apart from `model.Report`: the report may change with the tool, this layout
may not. Fields may be added to version 1; none is ever removed or changes its meaning, and readers
ignore what they don't know. Strict JSON: a number that does not exist is null, with a reason.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ConfigDict, Field, field_validator

from edgekd.report import model as m
from edgekd.report.value import Value

if TYPE_CHECKING:
    from edgekd.report.model import Report, TargetResult

SCHEMA: Literal["edgekd.verdict/1"] = "edgekd.verdict/1"


class _Contract(Value):
    model_config = ConfigDict(extra="ignore", populate_by_name=True)


class BudgetVerdict(_Contract):
    """One budget against its figure, both in `unit` (ms, bytes, mib or pt).

    Attributes:
        name: p50, p90, p95, p99, size, peak_memory or accuracy_drop.
        limit: Largest value that still meets it.
        unit: Of `limit` and `value`.
        value: The figure; null where there is none.
        met: The figure exists and is within the limit.
        reason: Why there is no figure.
    """

    name: str
    limit: float
    unit: str
    value: float | None
    met: bool
    reason: str | None


class Percentile(_Contract):
    """One latency percentile in milliseconds.

    Attributes:
        certified: Upper bound of the true percentile with 99 % confidence.
        empirical: Percentile of the samples.
        n: Number of samples.
        reason: Why `certified` is null.
    """

    certified: float | None
    empirical: float | None
    n: int
    reason: str | None


class LatencyVerdict(_Contract):
    """Latency of one inference."""

    p50: Percentile
    p90: Percentile
    p95: Percentile
    p99: Percentile


class AccuracyVerdict(_Contract):
    """Test metric in [0, 1]."""

    teacher: float
    control: float
    student_float: float
    artifact: float


class KernelVerdict(_Contract):
    """Convolutions and matrix products by kernel; Q/DQ nodes left standing."""

    int8: int
    float: int
    unfused: int


class ParityVerdict(_Contract):
    """The artifact in its runtime against the student it was made from, logits on real inputs."""

    max_abs: float
    mean_abs: float
    agreement: float


class ArtifactVerdict(_Contract):
    """The file that the figures are about.

    Attributes:
        path: Relative to the run folder, with forward slashes.
        sha256: Of its content.
    """

    path: str
    sha256: str

    @field_validator("path")
    @classmethod
    def _inside_the_run(cls, path: str) -> str:
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise ValueError(f"an artifact's path is relative to the run folder, got {path!r}")
        return path


class TargetVerdict(_Contract):
    """One target: met or not, and every figure behind it."""

    target: str
    met: bool
    budgets: tuple[BudgetVerdict, ...]
    latency_ms: LatencyVerdict
    size_bytes: int
    peak_memory_mib: float | None
    accuracy: AccuracyVerdict
    kernels: KernelVerdict
    parity: ParityVerdict
    artifact: ArtifactVerdict


class Verdict(_Contract):
    """Met or not met, per target.

    Attributes:
        schema_name: Written as ``schema``.
        met: Every budget of every target is met.
        targets: In the order of the recipe.
    """

    schema_name: Literal["edgekd.verdict/1"] = Field(SCHEMA, alias="schema")
    met: bool
    targets: tuple[TargetVerdict, ...]


def verdict(report: Report) -> Verdict:
    """The report's verdict; `Verdict.to_json` is what verdict.json holds."""
    return Verdict(met=report.met, targets=tuple(_target(t) for t in report.targets))


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) that every verdict.json of version 1 keeps."""
    schema = Verdict.model_json_schema(by_alias=True, mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA, **schema}


def _target(t: TargetResult) -> TargetVerdict:
    return TargetVerdict(
        target=t.target,
        met=t.met,
        budgets=tuple(
            BudgetVerdict(
                name=b.name, limit=b.limit, unit=b.unit, value=b.value, met=b.met, reason=b.reason
            )
            for b in t.budgets
        ),
        latency_ms=_latency(t.measured.latency_ms),
        size_bytes=t.measured.size_bytes,
        peak_memory_mib=t.measured.peak_memory_mib,
        accuracy=AccuracyVerdict(
            teacher=t.accuracy.teacher,
            control=t.accuracy.control,
            student_float=t.accuracy.student_float,
            artifact=t.accuracy.artifact,
        ),
        kernels=KernelVerdict(
            int8=t.kernels.int8, float=t.kernels.float, unfused=t.kernels.unfused
        ),
        parity=ParityVerdict(
            max_abs=t.parity.max_abs, mean_abs=t.parity.mean_abs, agreement=t.parity.agreement
        ),
        artifact=ArtifactVerdict(path=t.measured.artifact, sha256=t.measured.sha256),
    )


def _latency(latency: m.Latency) -> LatencyVerdict:
    def one(figure: m.Figure) -> Percentile:
        return Percentile(
            certified=figure.certified,
            empirical=figure.empirical,
            n=figure.n,
            reason=figure.reason,
        )

    return LatencyVerdict(
        p50=one(latency.p50), p90=one(latency.p90), p95=one(latency.p95), p99=one(latency.p99)
    )
