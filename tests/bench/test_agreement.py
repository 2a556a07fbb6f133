"""The bench that compares the profiler with others must not rot."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest


@pytest.mark.shared
def test_it_runs_and_keeps_every_sample(
    tmp_path: Path, repo_root: Path, shared_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = runpy.run_path(str(repo_root / "bench" / "bench_agreement.py"))
    out = tmp_path / "agreement.json"
    assert bench["main"](["--smoke", "--data", str(shared_data), "--out", str(out)]) == 0
    report = json.loads(out.read_text())
    assert {row["against"] for row in report["rows"]} == {
        "bare ONNX Runtime loop",
        "benchmark_app",
    }
    # one short round on a busy machine: the same model at least, not another
    assert all(0.2 < row["ratio"] < 5 for row in report["rows"])
    (samples,) = report["samples"].values()
    assert all(len(rounds) == 1 for rounds in samples.values())
    assert report["overhead_us"]["altogether"] < 20
    assert report["markdown"] in capsys.readouterr().out
