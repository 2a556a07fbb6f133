"""The bench of the students' int8 latency must not rot."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest


@pytest.mark.slow
def test_every_integer_file_runs_in_integer_kernels(
    tmp_path: Path, repo_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = runpy.run_path(str(repo_root / "bench" / "bench_student_latency.py"))
    out = tmp_path / "student_latency.json"
    assert bench["main"](["--smoke", "--out", str(out)]) == 0
    report = json.loads(out.read_text())
    (rows,) = report["rows"].values()
    assert len(rows) == len(bench["RUNTIMES"]) * len(bench["FORMS"])
    for row in rows:
        kernels = (row["int8"], row["float"])
        assert kernels == ((0, 6) if row["form"] == "float" else (6, 0))
        assert row["n"] == len(row["samples_ns"])
    assert report["markdown"] in capsys.readouterr().out
