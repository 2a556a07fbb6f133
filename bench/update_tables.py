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
        return markdown.render(Report.model_validate_json(report.read_text()))
    rows = RUNS / f"{name}.json"
    if rows.is_file():
        found: str = json.loads(rows.read_text())["markdown"]
        return found
    return None


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
