"""The bench of differentiable quantization must not rot."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
import torch


def test_it_runs_and_keeps_every_turn(
    tmp_path: Path,
    repo_root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.syspath_prepend(str(repo_root / "bench"))  # its neighbour, as in a started script
    bench = runpy.run_path(str(repo_root / "bench" / "bench_points.py"))
    out, threads = tmp_path / "points.json", torch.get_num_threads()
    try:
        assert bench["main"](["--smoke", "--out", str(out)]) == 0
    finally:
        torch.set_num_threads(threads)
    report = json.loads(out.read_text())
    assert len(report["samples_ns"]) == 5
    assert all(len(samples) == 1 for samples in report["samples_ns"].values())
    assert report["markdown"] in capsys.readouterr().out
