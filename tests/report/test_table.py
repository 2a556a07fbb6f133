from __future__ import annotations

import io

import pytest
from rich.console import Console

from edgekd.report.model import Report
from edgekd.report.table import verdict_table


def printed(report: Report, width: int) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(verdict_table(report, width=width))
    return [line.rstrip() for line in out.getvalue().splitlines()]


@pytest.mark.parametrize("width", [80, 100, 140])
def test_a_target_is_a_line_and_nothing_is_cut_off(met_report: Report, width: int) -> None:
    lines = printed(met_report, width)
    assert lines[0] == "digits: met. Every budget is met on 2 targets."
    assert lines[1].split()[:3] == ["target", "met", "p90"]
    assert len(lines) == 5
    assert max(map(len, lines)) <= width
    assert lines[3].startswith("x86-onnxruntime-int8  ✓ 4/4  ")
    assert lines[3].endswith("98.61 %  0.28 pt  10/10")
    assert "…" not in "".join(lines)


def test_a_narrow_terminal_leaves_out_only_the_memory(met_report: Report) -> None:
    wide, narrow = printed(met_report, 100), printed(met_report, 80)
    assert set(wide[1].split()) - set(narrow[1].split()) == {"memory"}


def test_missed_targets_and_the_closest_point(missed_report: Report) -> None:
    lines = printed(missed_report, 100)
    text = "\n".join(lines)
    assert "✗ 0/5" in text
    assert "refused" in text
    assert "Closest: p99 against 400 µs on" in text
    assert lines[-1].endswith("has no figure: needs 662 samples, has 300.")
    assert max(map(len, lines)) <= 100


def test_brackets_in_a_name_are_not_read_as_markup(missed_report: Report) -> None:
    lines = printed(missed_report, 160)
    assert "[red]" in lines[0]
