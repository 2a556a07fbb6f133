"""The report as data: every figure beside its source. `verdict` and `html` are views of it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import model_validator

from edgekd.core.types import Conditions
from edgekd.report.layer_bits import MixedBits, SharedPoints
from edgekd.report.value import Value


class Figure(Value):
    """One percentile of one profile, in milliseconds.

    Attributes:
        certified: Upper bound of the true percentile with 99 % confidence; None with a reason.
        empirical: The plain sample percentile; None where n cannot support it.
        n: Samples it was computed from.
        reason: Why there is no certified figure.
    """

    certified: float | None
    empirical: float | None
    n: int
    reason: str | None = None

    @model_validator(mode="after")
    def _refused_with_a_reason(self) -> Figure:
        if (self.certified is None) != bool(self.reason):
            raise ValueError("a refused percentile carries its reason, a certified one has none")
        return self


class Latency(Value):
    """The four percentiles of one profile."""

    p50: Figure
    p90: Figure
    p95: Figure
    p99: Figure


class Measured(Value):
    """One timed file.

    Attributes:
        name: What the user calls it: "teacher", "student_float", or a target's name.
        target: Under which target's runtime and conditions it ran.
        artifact: Path relative to the run folder.
        sha256: Of the file.
        size_bytes: Of the file.
        peak_memory_mib: Peak resident memory of a fresh process that loads and runs it.
        runtime_memory_mib: The same process after importing the runtime, before loading the file.
        latency_ms: Percentiles.
        conditions: What it was timed under.
        profile: Path of the raw samples, relative to the run folder.
        samples_ms: At most 400 of the samples, evenly picked, for the picture.
        cv: Standard deviation over mean of all samples; a noise warning above 0.25.
        source: "measured" or "simulated".
        place: The device that it ran on, in words.
    """

    name: str
    target: str
    artifact: str
    sha256: str
    size_bytes: int
    peak_memory_mib: float | None
    runtime_memory_mib: float | None
    latency_ms: Latency
    conditions: Conditions
    profile: str
    samples_ms: tuple[float, ...]
    cv: float
    source: Literal["measured", "simulated"]
    place: str = "this machine"


class Arm(Value):
    """One way of training the student, over all seeds.

    Attributes:
        name: control, distilled, post_training, quantized_control, quantized_distillation.
        title: The same for people.
        scores: Test metric per seed, in [0, 1].
        validation: Validation metric per seed.
        chosen_seed: The seed deployed from this arm, by validation; None if the arm is not used.
        note: What was decided about the arm, and why.
        train_s: Seconds of training over all seeds.
    """

    name: str
    title: str
    scores: tuple[float, ...]
    validation: tuple[float, ...]
    chosen_seed: int | None
    note: str
    train_s: float


class Rung(Value):
    """One step of the parity ladder against the step before it, on the same real inputs.

    Attributes:
        name: E.g. "torch float", "torch fake-quant", "ONNX reference", "ONNX Runtime".
        against: Name of the rung it is compared with; None for the first.
        max_abs: Largest absolute logit difference.
        mean_abs: Mean absolute logit difference.
        agreement: Fraction of samples with the same decision.
        score: Task metric on these samples.
        n: Samples compared.
        ok: Within the target's tolerance; None where no tolerance applies.
        first_difference: First layer that differs, where not ok.
    """

    name: str
    against: str | None
    max_abs: float | None
    mean_abs: float | None
    agreement: float | None
    score: float
    n: int
    ok: bool | None
    first_difference: str | None = None


class BudgetResult(Value):
    """One budget against its figure; both in the budget's own unit."""

    name: str
    limit: float
    unit: str
    value: float | None
    met: bool
    reason: str | None = None


class Kernels(Value):
    """Convolutions and matrix products by the kernel they really run in."""

    int8: int
    float: int
    unfused: int
    floats: dict[str, str] = {}


class Parity(Value):
    """The last rung against the fake-quant (or float) student."""

    max_abs: float
    mean_abs: float
    agreement: float


class Accuracy(Value):
    """Test metric in [0, 1] of the four models that matter; control is the mean over seeds."""

    teacher: float
    control: float
    student_float: float
    artifact: float


class Storage(Value):
    """What the artifact takes, counted in different ways.

    Attributes:
        zstd_bytes: The file, compressed with zstd at its level 19.
        weights: Quantized weights; None in float.
        stored_bytes: Their codes at their real width, with scales, offsets and points.
        huffman_bytes: The same with the codes Huffman coded, code tables counted.
    """

    zstd_bytes: int
    weights: int | None = None
    stored_bytes: int | None = None
    huffman_bytes: int | None = None


class Finding(Value):
    """One thing that costs time in the artifact; `time_us` bounds what can be won."""

    title: str
    time_us: float
    what_to_change: str
    read_from: str


class Spent(Value):
    """Time that nodes of one sort take in both models, by the runtime's counters."""

    on: str
    student_float_us: float
    artifact_us: float


class Explanation(Value):
    """Where the time of an artifact goes, beside the float student in the same runtime.

    Attributes:
        spent: By sort of node.
        findings: What costs time, the longest first.
        notes: How far the figures can be trusted.
    """

    spent: tuple[Spent, ...]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]


class TargetResult(Value):
    """Everything about one target.

    Attributes:
        measured: The artifact.
        storage: What it takes otherwise counted; None in reports of older versions.
        options: Of the runtime, under which all of this was found; deploy with the same.
        baseline: The float teacher in the same runtime, timed in the same run.
        student_float: The same for the float student; the control arm has the same network.
        explanation: None where nothing was measured, and for float targets.
    """

    target: str
    description: str
    backend: str
    runtime_version: str
    precision: str
    met: bool
    budgets: tuple[BudgetResult, ...]
    measured: Measured
    baseline: Measured | None
    student_float: Measured | None = None
    speedup_p90: float | None
    speedup_p50: float | None
    accuracy: Accuracy
    kernels: Kernels
    layers: tuple[dict[str, Any], ...]
    ladder: tuple[Rung, ...]
    parity: Parity
    storage: Storage | None = None
    options: dict[str, str | int | float | bool] = {}
    explanation: Explanation | None = None


class Net(Value):
    """Size of a network: parameters, multiply-accumulates of one sample, bytes in float ONNX."""

    title: str
    parameters: int | None
    macs: int | None
    float_bytes: int | None


class StageLine(Value):
    """One stage of the run: done or reused, why, how long."""

    name: str
    reused: bool
    reason: str
    seconds: float
    key: str


class Report(Value):
    """What one run of `edgekd compress` found.

    Attributes:
        schema_name: Version of this file's layout.
        met: Every budget of every target is met.
        closest: Where not met: what `budgets.closest` says about the targets, in words.
        student_size_ratio: Bytes of the teacher's float file over those of the largest artifact.
        skipped: Layers left in float: name -> reason.
        mixed: Bits per layer, for each scheme, where the recipe asks for mixed precision.
        points: Codebook points per layer, likewise, where the recipe asks to share them out.
        recipe: The whole recipe as it ran.
        command: Reproduces this report.
        hashes: sha256 of recipe, data, teacher, student.
        environment: Machine, CPU flags, versions.
    """

    schema_name: Literal["edgekd.report/1"] = "edgekd.report/1"
    name: str
    met: bool
    closest: str | None
    created_utc: str
    metric: str
    data: str
    teacher: Net
    student: Net
    teacher_score: float
    teacher_validation: float
    arms: tuple[Arm, ...]
    targets: tuple[TargetResult, ...]
    student_size_ratio: float | None
    macs_ratio: float | None
    skipped: dict[str, str]
    mixed: tuple[MixedBits, ...] = ()
    points: tuple[SharedPoints, ...] = ()
    stages: tuple[StageLine, ...]
    warnings: tuple[str, ...]
    recipe: dict[str, Any]
    command: str
    hashes: dict[str, str]
    environment: dict[str, Any]
