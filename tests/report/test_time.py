"""Where an artifact's time goes, in every form of the report."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edgekd.report import html, markdown
from edgekd.report.model import Explanation, Finding, Report, Spent, TargetResult

FOUND = Explanation(
    spent=(Spent(on="matmul int8", student_float_us=0.0, artifact_us=41.5),),
    findings=(
        Finding(
            title="2 convolutions in <float>: 12.5 us",
            time_us=12.5,
            what_to_change="store the bias as int32",
            read_from="the runtime's per-layer counters",
        ),
        Finding(
            title="1 node only for layout",
            time_us=3.0,
            what_to_change="feed integers",
            read_from="x",
        ),
    ),
    notes=("artifact: take them as shares",),
)


@pytest.fixture
def explained(
    make_report: Callable[..., Report], make_target: Callable[..., TargetResult]
) -> Report:
    return make_report((make_target().model_copy(update={"explanation": FOUND}),))


def test_the_page_shows_times_findings_and_what_to_do(explained: Report) -> None:
    page = html.render(explained)
    assert "<h2>Where the time goes</h2>" in page
    assert "2 convolutions in &lt;float&gt;: 12.5 us" in page
    assert "store the bias as int32" in page
    assert "artifact: take them as shares" in page
    assert page.index("Where the time goes") > page.index("<h2>Kernels</h2>")


def test_the_table_names_what_costs_most(explained: Report) -> None:
    text = markdown.render(explained)
    assert (
        "- costs most on `x86-onnxruntime-int8`: 2 convolutions in &lt;float&gt;: 12.5 us; "
        "to do: store the bias as int32\n"
    ) in text
    assert "1 node only for layout" not in text


def test_the_data_holds_all_of_it(explained: Report) -> None:
    back = Report.model_validate_json(explained.to_json())
    assert back.targets[0].explanation == FOUND


def test_without_an_explanation_nothing_is_said(make_report: Callable[..., Report]) -> None:
    report = make_report()
    assert "Where the time goes" not in html.render(report)
    assert "costs most" not in markdown.render(report)
