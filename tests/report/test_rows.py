from __future__ import annotations

from collections.abc import Callable

import pytest

from edgekd.report import rows
from edgekd.report.model import BudgetResult, Report, TargetResult


def test_networks_side_by_side_and_a_black_box_is_not_known(
    met_report: Report, missed_report: Report
) -> None:
    parameters, macs, size = rows.networks(met_report)
    assert parameters == {
        "title": "parameters", "teacher": "176\u202fk", "student": "19,846", "ratio": "8.9×",
    }  # fmt: skip
    assert (macs["ratio"], size["teacher"]) == ("8.9×", "696\u202fKiB")
    assert {row["teacher"] for row in rows.networks(missed_report)} == {"not known"}
    assert {row["ratio"] for row in rows.networks(missed_report)} == {"–"}


def test_memory_names_the_share_of_the_runtime(
    make_report: Callable[..., Report], make_target: Callable[..., TargetResult]
) -> None:
    target = make_target()
    own = target.measured.model_copy(update={"runtime_memory_mib": None})
    half = target.model_copy(update={"measured": own, "baseline": None})
    lines = rows.memory(make_report((target, half, make_target(memory=None, baseline=False))))
    assert [line["name"] for line in lines] == [
        "x86-onnxruntime-int8", "float teacher", "x86-onnxruntime-int8", "x86-onnxruntime-int8",
    ]  # fmt: skip
    said = lines[0]["runtime"].replace("\u202f", " ")
    assert said == "of the peak, 87.1 MiB is the runtime itself, 9.30 MiB the model"
    assert lines[2]["runtime"] == "the runtime's own share is not known"
    assert (lines[3]["peak"], lines[3]["runtime"]) == ("not measured", "")


def test_only_the_slowest_layers_are_listed_in_the_order_they_run(
    make_target: Callable[..., TargetResult],
) -> None:
    times = [None, *(float(i) for i in range(rows.MAX_LAYERS + 1))]
    layers = tuple({"name": str(i), "time_us": t} for i, t in enumerate(times))
    view = rows.layers(make_target().model_copy(update={"layers": layers}))
    assert view.left_out == 2
    # layer 0 has no time and layer 1 takes 0 µs: both share the last place, the later one goes
    kept = [int(row["name"]) for row in view.rows]
    assert kept == list(range(2, rows.MAX_LAYERS + 2))
    assert view.rows[-1]["share"] == 100


def test_layers_without_times_have_no_bars(make_target: Callable[..., TargetResult]) -> None:
    view = rows.layers(make_target().model_copy(update={"layers": ({"name": "a"}, {"name": "b"})}))
    assert [row["share"] for row in view.rows] == [0, 0]


def test_warnings_are_the_runs_own_and_figures_without_a_clock(
    make_report: Callable[..., Report], make_target: Callable[..., TargetResult]
) -> None:
    target = make_target(baseline=False)
    own = target.measured.model_copy(update={"source": "simulated"})
    simulated = target.model_copy(update={"measured": own})
    assert rows.warnings(make_report((target, simulated), warnings=("loaded",))) == [
        "loaded",
        "x86-onnxruntime-int8, artifact: simulated, no clock ran on a device",
    ]


def test_noise_is_named_above_a_quarter(make_target: Callable[..., TargetResult]) -> None:
    assert rows.noise(make_target()) == []
    assert rows.noise(make_target(spread=0.38)) == [
        "artifact: noisy, the standard deviation is 38 % of the mean (above 25 %)"
    ]


@pytest.mark.parametrize(
    ("limit", "value", "use"),
    [(2.0, 1.0, "50 %"), (2.0, 5.0, "250 %"), (2.0, None, "–"), (0.0, 0.0, "–"), (1.0, -0.2, "–")],
)
def test_use_of_a_budget(limit: float, value: float | None, use: str) -> None:
    budget = BudgetResult(name="p90", limit=limit, unit="ms", value=value, met=False)
    assert rows.budget_use(budget) == use


def test_the_float_student_stands_beside_the_artifact(
    make_target: Callable[..., TargetResult],
) -> None:
    target = make_target()
    twin = target.measured.model_copy(update={"name": "student_float@x"})
    both = target.model_copy(update={"student_float": twin})
    assert [name for name, _ in rows.timed(both)] == ["artifact", "float student", "teacher"]
