from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable

import pytest

from edgekd.report import charts
from edgekd.report.html import TEMPLATES
from edgekd.report.model import Report, TargetResult


def parsed(svg: str) -> ET.Element:
    return ET.fromstring(svg)  # noqa: S314 - written by the code under test


def texts(svg: str) -> list[str]:
    return [el.text or "" for el in parsed(svg).iter("text")]


def test_a_chart_scales_and_carries_nothing_that_could_clash_or_load(met_report: Report) -> None:
    svg = charts.accuracy_svg(met_report)
    root = parsed(svg)
    assert root.tag == "svg"
    assert set(root.attrib) == {"class", "viewBox", "role", "aria-label"}
    for el in root.iter():
        assert not {"id", "href", "clip-path", "font-family", "class"} & (
            set(el.attrib) if el is not root else set()
        )
    assert "http" not in svg


def test_accuracy_chart_names_every_arm_with_its_mean(met_report: Report) -> None:
    svg = charts.accuracy_svg(met_report)
    shown = texts(svg)
    assert [t for t in shown if not re.match(r"[\d.]+%|test ", t)] == [
        *(arm.title for arm in met_report.arms),
        "mean 97.59 %, 97.22 to 97.78 %",
        "mean 98.80 %, 98.61 to 98.89 %",
        "mean 98.33 %, 98.06 to 98.61 %",
        "mean 98.61 %, 98.33 to 98.89 %",
    ]
    assert svg.count(f'stroke="{charts.TEACHER}"') == len(met_report.arms)
    assert "quantized distillation (int8) 98.61 %" in parsed(svg).attrib["aria-label"]


def test_one_seed_has_no_range(met_report: Report) -> None:
    arm = met_report.arms[0]
    one = met_report.model_copy(update={"arms": (arm.model_copy(update={"scores": (1.0,)}),)})
    assert "mean 100 %" in texts(charts.accuracy_svg(one))


def test_latency_chart_shows_both_curves_and_the_budget(
    make_target: Callable[..., TargetResult],
) -> None:
    svg = charts.latency_svg(make_target())
    assert f'stroke="{charts.STUDENT}"' in svg
    assert f'stroke="{charts.TEACHER}"' in svg
    assert svg.count(f'stroke="{charts.LIMIT}"') == 1
    assert "latency of one inference, µs (log scale)" in texts(svg)


def test_without_a_baseline_there_is_one_curve(make_target: Callable[..., TargetResult]) -> None:
    svg = charts.latency_svg(make_target(baseline=False, spread=0.01, budgets=()))
    assert f'stroke="{charts.TEACHER}"' not in svg
    assert "latency of one inference, µs" in texts(svg)  # narrow range: linear axis


def test_a_budget_far_away_is_told_in_words_instead(
    make_target: Callable[..., TargetResult],
) -> None:
    target = make_target(budgets=("p90<=0.25ms", "p99<=2s"))
    assert [b.name for b in charts.drawn_budgets(target)] == ["p90"]
    assert charts.latency_svg(target).count(f'stroke="{charts.LIMIT}"') == 1


def test_milliseconds_where_they_read_better(make_target: Callable[..., TargetResult]) -> None:
    svg = charts.latency_svg(make_target(median_ms=12.0, baseline=False, budgets=()))
    assert any(t.startswith("latency of one inference, ms") for t in texts(svg))


def test_hostile_names_stay_text(met_report: Report) -> None:
    arm = met_report.arms[0].model_copy(update={"title": "<script>&"})
    svg = charts.accuracy_svg(met_report.model_copy(update={"arms": (arm,)}))
    assert "<script" not in svg
    assert "<script>&" in texts(svg)


def test_every_colour_has_its_rule_in_the_style_sheet(met_report: Report) -> None:
    css = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    drawn = charts.accuracy_svg(met_report) + charts.latency_svg(met_report.targets[0])
    used = set(re.findall(r'(?:fill|stroke)="#[0-9a-f]{6}"', drawn))
    assert len(used) >= 8
    assert [rule for rule in used if f"svg.chart [{rule}]" not in css] == []


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (28, 400, [30, 50, 100, 200, 300]),
        (0.9, 450, [1, 3, 10, 30, 100, 300]),
        (1, 5000, [1, 10, 100, 1000]),
    ],
)
def test_log_ticks_are_round_and_few(low: float, high: float, ticks: list[float]) -> None:
    assert charts.log_ticks(low, high) == pytest.approx(ticks)
