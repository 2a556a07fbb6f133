from __future__ import annotations

import re
from collections.abc import Callable

from edgekd.report.markdown import render
from edgekd.report.model import Report


def cells(line: str) -> list[str]:
    """Split a row of GitHub's Markdown as GitHub does: at every bar that is not escaped."""
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_a_row_per_target_and_the_command(met_report: Report) -> None:
    text = render(met_report)
    assert text.startswith("**✅ Met**: `digits`. Every budget is met on 2 targets.\n\n| target |")
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 4
    assert {len(cells(line)) for line in table} == {9}
    row = cells(table[2])
    assert row[:2] == ["`x86-onnxruntime-int8`", "✅ 4 of 4"]
    assert row[4:] == ["28.0 KiB", "96.4 MiB", "98.61 %", "0.28 pt", "10 of 10"]
    assert "- 22× smaller than the teacher (696 KiB float teacher" in text
    assert text.endswith(
        "Reproduce: `edgekd compress digits --set distill.epochs=40 --out runs/digits`\n"
    )


def test_what_is_missed_is_named_with_the_closest_point(missed_report: Report) -> None:
    text = render(missed_report)
    assert text.startswith("**❌ Not met**: ")
    assert "❌ 0 of 5, missed: p90, p99, size, peak memory, accuracy drop" in text
    assert "refused: needs 64 samples, has 20" in text
    assert "\nClosest: p99 against 400 µs on " in text
    assert "- left in float: `stem.conv`, " in text
    assert "not measured" in text
    assert "✅ none set" in text


def test_names_cannot_break_the_table_or_become_markup(missed_report: Report) -> None:
    text = render(missed_report)
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 6
    assert {len(cells(line)) for line in table} == {9}
    # outside of code spans (a fence of any length) no angle bracket is left
    prose = re.sub(r"(`+) ?.*?(?<!`)\1(?!`)", "", re.sub(r"\\.", "", text), flags=re.DOTALL)
    assert "<" not in prose


def test_a_command_is_shown_letter_by_letter(make_report: Callable[..., Report]) -> None:
    command = "edgekd compress a.yaml --set 'x=`y`|z'"
    assert render(make_report(command=command)).endswith(f"Reproduce: `` {command} ``\n")
