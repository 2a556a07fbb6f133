from __future__ import annotations

import subprocess
import sys

HEAVY = ("altair", "vl_convert", "jinja2", "torch", "rich", "onnx")


def test_importing_the_views_loads_nothing_heavy() -> None:
    program = (
        "import sys, edgekd.report.html, edgekd.report.markdown, edgekd.report.table, "
        "edgekd.report.verdict; "
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
