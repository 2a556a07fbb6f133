"""The report's pictures. Narrow and tall, so that their text is readable on a phone.

Colours are Okabe and Ito's (distinct for every kind of colour vision); the style sheet maps each
of them, and the greys, to its counterpart in dark mode.
"""

from __future__ import annotations

import math
from statistics import fmean
from typing import TYPE_CHECKING, Any

from edgekd.report import format as fmt
from edgekd.report.svg import inline_svg

if TYPE_CHECKING:
    from edgekd.report.model import Arm, BudgetResult, Measured, Report, TargetResult

STUDENT, TEACHER, LIMIT = "#0072b2", "#d55e00", "#b3261e"
INK, MUTED, GRID = "#1b1f26", "#59626f", "#dfe3e8"
_WIDTH = 318
_ROW_HEIGHT = 60
_CURVE_POINTS = 160
#: above this ratio of slowest to fastest, a linear axis would squeeze the faster one into a line
_LOG_FROM = 4.0


def accuracy_svg(report: Report) -> str:
    """A row per arm: its seeds, their range and mean, and the teacher as a dashed line."""
    import altair as alt

    arms = [arm for arm in report.arms if arm.scores]
    low, high = _padded([s for arm in arms for s in arm.scores] + [report.teacher_score])
    rows = [_arm_row(arm, i, low) for i, arm in enumerate(arms)]
    dots = [{"row": i, "score": s} for i, arm in enumerate(arms) for s in arm.scores]
    # above each row's marks two lines of text, as a phone is too narrow for text beside them
    y_scale = alt.Scale(domain=[len(arms) - 0.7, -0.75])
    y = alt.Y("row:Q", scale=y_scale, axis=None)
    x_axis = alt.Axis(format=".1%", tickCount=5, title=f"test {report.metric}")
    x_scale = alt.Scale(domain=[low, high], nice=False)

    def x(field: str) -> Any:
        return alt.X(f"{field}:Q", scale=x_scale, axis=x_axis)

    table = alt.Chart(alt.Data(values=rows))
    marks = alt.Chart(alt.Data(values=dots))
    teacher = table.transform_calculate(teacher=str(report.teacher_score))
    titles = table.mark_text(
        align="left", dy=-33, fontSize=12, fontWeight=600, color=INK, limit=_WIDTH
    )
    values = table.mark_text(align="left", dy=-17, fontSize=11, color=MUTED)
    layers = [
        teacher.mark_rule(color=TEACHER, strokeDash=[4, 3], strokeWidth=1.5).encode(
            x=x("teacher"), y=alt.Y("from:Q", scale=y_scale, axis=None), y2="to:Q"
        ),
        table.mark_rule(color=STUDENT, strokeWidth=2.5).encode(x=x("worst"), x2="best:Q", y=y),
        marks.mark_point(color=STUDENT, size=34, strokeWidth=1.3).encode(x=x("score"), y=y),
        table.mark_point(color=STUDENT, size=95, filled=True, opacity=1).encode(x=x("mean"), y=y),
        titles.encode(x=x("low"), y=y, text="title:N"),
        values.encode(x=x("low"), y=y, text="text:N"),
    ]
    chart = alt.layer(*layers).properties(
        width=_WIDTH, height=_ROW_HEIGHT * (len(arms) + 0.05), data=alt.Data(values=rows)
    )
    spoken = "; ".join(f"{arm.title} {fmt.percent(fmean(arm.scores))}" for arm in arms)
    return inline_svg(_styled(chart), label=f"Test {report.metric}, mean over seeds: {spoken}")


def latency_svg(target: TargetResult) -> str:
    """Share of inferences at or below each latency: artifact, and float teacher where timed."""
    import altair as alt

    curves = _curves(target)
    if not target.measured.samples_ms:
        return ""
    low, high = _span(target)
    shown = sorted({b.limit for b in drawn_budgets(target)})
    low, high = min([low, *shown]) / 1.04, max([high, *shown]) * 1.04
    scale, unit = (1e3, "µs") if max(_median(m) for _, m in curves) < 1 else (1.0, "ms")
    log = high / low >= _LOG_FROM
    axis = alt.Axis(title=f"latency of one inference, {unit}{' (log scale)' if log else ''}")
    if log:
        axis.values = log_ticks(low * scale, high * scale)
    else:
        axis.tickCount = 5
    x_scale = alt.Scale(
        type="log" if log else "linear", domain=[low * scale, high * scale], nice=False
    )
    x = alt.X("ms:Q", scale=x_scale, axis=axis)
    y = alt.Y(
        "share:Q",
        scale=alt.Scale(domain=[0, 1]),
        axis=alt.Axis(values=[0, 0.25, 0.5, 0.75, 0.9, 1], format=".0%", grid=True),
        title=None,
    )
    colour = alt.Color(
        "curve:N",
        legend=None,
        scale=alt.Scale(domain=["artifact", "teacher"], range=[STUDENT, TEACHER]),
    )
    points = [p for name, m in curves for p in _ecdf(name, m, scale)]
    line = alt.Chart(alt.Data(values=points)).mark_line(interpolate="step-after", strokeWidth=2)
    layers = [line.encode(x=x, y=y, color=colour)]
    bounds = [
        {"ms": p90 * scale, "share": 0.9, "curve": name}
        for name, m in curves
        if (p90 := m.latency_ms.p90.certified) is not None and low <= p90 <= high
    ]
    if bounds:
        dot = alt.Chart(alt.Data(values=bounds)).mark_point(size=90, filled=True, opacity=1)
        layers.append(dot.encode(x=x, y=y, color=colour))
    if shown:
        rule = alt.Chart(alt.Data(values=[{"ms": limit * scale} for limit in shown]))
        layers.append(rule.mark_rule(color=LIMIT, strokeDash=[2, 3], strokeWidth=1.5).encode(x=x))
    chart = alt.layer(*layers).properties(width=_WIDTH - 32, height=190)
    spoken = ", ".join(f"{name} median {fmt.duration(_median(m))}" for name, m in curves)
    return inline_svg(_styled(chart), label=f"Latency distribution on {target.target}: {spoken}")


def drawn_budgets(target: TargetResult) -> list[BudgetResult]:
    """The latency budgets that `latency_svg` draws; one far away would squeeze the curves."""
    if not target.measured.samples_ms:
        return []
    low, high = _span(target)
    return [b for b in target.budgets if b.unit == "ms" and low / 3 <= b.limit <= high * 3]


def _curves(target: TargetResult) -> list[tuple[str, Measured]]:
    teacher = target.baseline
    own = [("artifact", target.measured)]
    return own if teacher is None or not teacher.samples_ms else [*own, ("teacher", teacher)]


def _span(target: TargetResult) -> tuple[float, float]:
    samples = [s for _, measured in _curves(target) for s in measured.samples_ms]
    return min(samples), max(samples)


def _styled(chart: Any) -> Any:
    axis = {
        "labelColor": MUTED,
        "titleColor": MUTED,
        "labelFontSize": 11,
        "titleFontSize": 11,
        "titleFontWeight": "normal",
        "titlePadding": 8,
        "gridColor": GRID,
        "domain": False,
        "tickColor": GRID,
        "labelFlush": False,
    }
    return (
        chart.properties(background="transparent")
        .configure(aria=False, padding=4)
        .configure_axis(**axis)
        .configure_view(stroke=None)
    )


def _arm_row(arm: Arm, row: int, low: float) -> dict[str, Any]:
    best, worst, mean = max(arm.scores), min(arm.scores), fmean(arm.scores)
    span = f", {worst * 100:.2f} to {fmt.percent(best)}" if len(arm.scores) > 1 else ""
    return {
        "row": row, "from": row - 0.14, "to": row + 0.2, "low": low,
        "best": best, "worst": worst, "mean": mean, "title": arm.title,
        "text": f"mean {fmt.percent(mean)}{span}",
    }  # fmt: skip


def _padded(values: list[float]) -> tuple[float, float]:
    """The range of the values with a margin; at least a point wide: noise must look small."""
    low, high = min(values), max(values)
    margin = max((high - low) * 0.12, (0.01 - (high - low)) / 2, 0.001)
    return low - margin, high + margin


def _ecdf(name: str, measured: Measured, scale: float) -> list[dict[str, Any]]:
    ordered = sorted(measured.samples_ms)
    n = len(ordered)
    count = min(n, _CURVE_POINTS)
    picks = sorted({round(i * (n - 1) / max(count - 1, 1)) for i in range(count)})
    curve = [{"ms": ordered[i] * scale, "share": (i + 1) / n, "curve": name} for i in picks]
    return [{"ms": ordered[0] * scale, "share": 0.0, "curve": name}, *curve]


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers inside the range, fewer per decade the more decades it spans."""
    steps = (1, 2, 3, 5) if high / low < 30 else (1, 3) if high / low < 1000 else (1,)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    ticks = [step * 10.0**power for power in range(first, last + 1) for step in steps]
    return [t for t in ticks if low <= t <= high]


def _median(measured: Measured) -> float:
    ordered = sorted(measured.samples_ms)
    return ordered[len(ordered) // 2]
