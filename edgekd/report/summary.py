"""What the figures of a report add up to, in words; the views (HTML, Markdown, table) share it."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from edgekd.report import format as fmt
from edgekd.report.budgets import closest

if TYPE_CHECKING:
    from edgekd.report.model import Arm, Report, TargetResult


@dataclass(frozen=True, slots=True)
class Gain:
    """What one step changed in the mean test metric.

    Attributes:
        title: The step.
        before: Title of the arm it is compared with.
        after: Title of the arm it leads to.
        points: Difference of the means in points; positive is better.
        overlap: The seeds' ranges overlap, so that the difference may be the luck of the seeds;
            None with one seed, where nothing can be said.
    """

    title: str
    before: str
    after: str
    points: float
    overlap: bool | None


@dataclass(frozen=True, slots=True)
class Fact:
    """One key figure: what it is, what it was computed from, and where that came from."""

    value: str
    label: str
    detail: str
    source: str


def headline(report: Report) -> str:
    """``2 of 3 targets meet every budget``."""
    met, n = sum(t.met for t in report.targets), len(report.targets)
    if met == n:
        return f"Every budget is met on {fmt.plural(n, 'target')}"
    return f"{met} of {fmt.plural(n, 'target')} {'meets' if met == 1 else 'meet'} every budget"


def target_line(target: TargetResult, metric: str) -> str:
    """One sentence: certified p90, size, metric, budgets met."""
    p90 = target.measured.latency_ms.p90
    if p90.certified is None:
        latency = f"p90 not certified ({p90.reason})"
    else:
        latency = f"{fmt.duration(p90.certified)} p90 certified (n = {fmt.count(p90.n)})"
    size = fmt.size(target.measured.size_bytes)
    score = fmt.percent(target.accuracy.artifact, 1)
    return f"{latency}, {size}, {score} {metric} — {budgets_line(target)}"


def budgets_line(target: TargetResult) -> str:
    """``4 of 4 budgets met``."""
    if not target.budgets:
        return "no budgets set"
    met = sum(b.met for b in target.budgets)
    return f"{met} of {fmt.plural(len(target.budgets), 'budget')} met"


def closest_point(report: Report) -> str | None:
    """The report's own sentence, or the one its targets give."""
    return report.closest or closest(report.targets)


def drop_points(target: TargetResult) -> float:
    """Points of the metric that the artifact lost against the teacher."""
    return (target.accuracy.teacher - target.accuracy.artifact) * 100


def gains(report: Report) -> tuple[Gain, ...]:
    """What distillation and quantization each gained or cost, as far as the arms were trained.

    Quantized arms are compared with the float arm they were made from: the one that carries a
    chosen seed. With several quantization schemes there is a pair of arms for each.
    """
    arms = [arm for arm in report.arms if arm.scores]
    floats = {arm.name: arm for arm in arms if arm.name in ("control", "distilled")}
    control, distilled = floats.get("control"), floats.get("distilled")
    kept = next((a for a in floats.values() if a.chosen_seed is not None), distilled or control)
    found = []
    if control and distilled:
        found.append(_gain("Distillation", control, distilled))
    cheap: Arm | None = None
    labels: Arm | None = None
    for arm in arms:
        if arm.name == "post_training" and kept:
            cheap, labels = arm, None
            found.append(_gain("Post-training quantization", kept, arm))
        elif arm.name == "quantized_control":
            labels = arm
        elif arm.name == "quantized_distillation" and kept:
            found.append(_gain("Quantized distillation", kept, arm))
            if cheap:
                found.append(_gain("Quantized distillation over post-training", cheap, arm))
            if labels:
                found.append(_gain("Quantized distillation over labels alone", labels, arm))
    return tuple(found)


def facts(report: Report) -> tuple[Fact, ...]:
    """The key figures that exist: size, speed, accuracy, kernels; the worst target speaks."""
    found = (_size(report), _speed(report), _accuracy(report), _kernels(report))
    return tuple(fact for fact in found if fact is not None)


def _gain(title: str, before: Arm, after: Arm) -> Gain:
    return Gain(
        title=title,
        before=before.title,
        after=after.title,
        points=(fmean(after.scores) - fmean(before.scores)) * 100,
        overlap=_overlap(before, after),
    )


def _size(report: Report) -> Fact | None:
    if report.student_size_ratio is None or report.teacher.float_bytes is None:
        return None
    largest = max(t.measured.size_bytes for t in report.targets)
    return Fact(
        value=fmt.ratio(report.student_size_ratio),
        label="smaller than the teacher",
        detail=f"{fmt.size(report.teacher.float_bytes)} float teacher, {fmt.size(largest)} "
        f"{'largest artifact' if len(report.targets) > 1 else 'artifact'}",
        source="counted: bytes of the files",
    )


def _speed(report: Report) -> Fact | None:
    timed = [(t.speedup_p90, t) for t in report.targets if t.speedup_p90]
    if not timed:
        return None
    speedup, worst = min(timed, key=lambda pair: pair[0])
    own = worst.measured.latency_ms.p90.certified
    teacher = worst.baseline.latency_ms.p90.certified if worst.baseline else None
    pair = (
        ""
        if own is None or teacher is None
        else f"p90 {fmt.duration(teacher)} → {fmt.duration(own)} on {worst.target}; "
    )
    return Fact(
        value=fmt.ratio(speedup if speedup >= 1 else 1 / speedup),
        label=f"{'faster' if speedup >= 1 else 'slower'} than the teacher",
        detail=pair + "same runtime, same threads, interleaved",
        source=f"{worst.measured.source}: certified p90",
    )


def _accuracy(report: Report) -> Fact | None:
    if not report.targets:
        return None
    worst = max(report.targets, key=drop_points)
    lost = round(drop_points(worst), 2)
    return Fact(
        value=fmt.points(abs(lost)),
        label=f"{'lost' if lost >= 0 else 'gained'} against the teacher",
        detail=f"{fmt.percent(worst.accuracy.teacher)} → {fmt.percent(worst.accuracy.artifact)} "
        f"test {report.metric}",
        source="measured: test split",
    )


def _kernels(report: Report) -> Fact | None:
    int8 = [t for t in report.targets if t.precision == "int8"]
    if not int8:
        return None
    done = sum(t.kernels.int8 for t in int8)
    unfused = sum(t.kernels.unfused for t in int8)
    return Fact(
        value=f"{fmt.count(done)} of {fmt.count(done + sum(t.kernels.float for t in int8))}",
        label="kernels in int8",
        detail=f"convolutions and matrix products on {fmt.plural(len(int8), 'int8 target')}, "
        f"{fmt.count(unfused)} Q/DQ nodes unfused",
        source="counted: the runtime's own graph",
    )


def _overlap(a: Arm, b: Arm) -> bool | None:
    if min(len(a.scores), len(b.scores)) < 2:
        return None
    return min(a.scores) <= max(b.scores) and min(b.scores) <= max(a.scores)
