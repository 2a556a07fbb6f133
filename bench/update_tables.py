"""Rewrite the tables in README.md and bench/README.md from finished runs.

    python bench/update_tables.py

A table stands between ``<!-- made by bench/update_tables.py: NAME -->`` and ``<!-- end -->``. Its
content comes from ``runs/NAME/report.json`` or ``runs/NAME.json`` and says on what it was made;
nothing in it is typed by hand.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from edgekd.report import markdown
from edgekd.report.model import Report

ROOT = Path(__file__).resolve().parent.parent
RUNS = ROOT / "runs"
_TABLE = re.compile(
    r"(<!-- made by bench/update_tables\.py: ([\w.-]+) -->\n).*?(<!-- end -->)", re.DOTALL
)


def table(name: str) -> str | None:
    """Markdown of one run; None if it was not made on this machine."""
    report = RUNS / name / "report.json"
    if report.is_file():
        found = Report.model_validate_json(report.read_text())
        return f"{markdown.render(found).rstrip()}\n\n{accuracy(found)}\n\n{machine(found)}"
    rows = RUNS / f"{name}.json"
    if rows.is_file():
        found: str = json.loads(rows.read_text())["markdown"]
        return found
    return None


def accuracy(report: Report) -> str:
    """Test metric of the teacher, every arm and every artifact."""
    rows = [f"| model | test {report.metric} | seeds |", "| --- | ---: | ---: |"]
    rows.append(
        f"| teacher, float, {_macs(report.teacher.macs)} | {report.teacher_score:.2%} | 1 |"
    )
    for arm in report.arms:
        mean = sum(arm.scores) / len(arm.scores)
        spread = f" ({min(arm.scores):.2%} to {max(arm.scores):.2%})" if arm.scores[1:] else ""
        kept = ", kept" if arm.chosen_seed is not None else ""
        title = f"student, {arm.title}{kept}"
        rows.append(f"| {title} | {mean:.2%}{spread} | {len(arm.scores)} |")
    for target in report.targets:
        equal = f"{target.parity.agreement:.2%} of decisions equal to the fake-quant student"
        rows.append(
            f"| artifact in `{target.target}`, {equal} | {target.accuracy.artifact:.2%} | |"
        )
    rows.append("")
    rows.append(f"Student: {_macs(report.student.macs)}, {report.macs_ratio:.1f}x fewer.")
    return "\n".join(rows)


def machine(report: Report) -> str:
    """On what the figures were made."""
    facts, versions = report.environment["machine"], report.environment["versions"]
    names = ("torch", "onnxruntime", "openvino")
    runtimes = ", ".join(f"{name} {versions[name]}" for name in names)
    return (
        f"Made on {report.created_utc[:10]}: {facts['cpu']}, {facts['cores_usable']} cores, "
        f"{', '.join(facts['cpu_flags'])}; {runtimes}."
    )


def _macs(macs: int | None) -> str:
    return "a black box" if macs is None else f"{macs / 1e6:.2f} M MACs"


def rewrite(path: Path) -> None:
    """Replace every table of one file whose run is here; the others are left as they are."""

    def replaced(match: re.Match[str]) -> str:
        content = table(match[2])
        print(f"{path.relative_to(ROOT)}: {match[2]}: {'kept' if content is None else 'made'}")
        return match[0] if content is None else f"{match[1]}{content.rstrip()}\n{match[3]}"

    path.write_text(_TABLE.sub(replaced, path.read_text()))


if __name__ == "__main__":
    for document in (ROOT / "README.md", ROOT / "bench" / "README.md"):
        rewrite(document)
