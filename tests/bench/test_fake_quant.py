"""The bench of the quantization-aware step must not rot."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
import torch


def test_it_runs_and_keeps_every_step(
    tmp_path: Path, repo_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = runpy.run_path(str(repo_root / "bench" / "bench_fake_quant.py"))
    out, threads = tmp_path / "fake_quant.json", torch.get_num_threads()
    try:
        assert bench["main"](["--smoke", "--out", str(out)]) == 0
    finally:
        torch.set_num_threads(threads)
    report = json.loads(out.read_text())
    assert all(len(samples) == 1 for samples in report["samples_ns"].values())
    medians = report["median_ms"]
    assert set(medians) == {"float", *bench["ARMS"]}
    assert report["ratio"] == pytest.approx(medians[bench["JUDGED"]] / medians["float"])
    assert report["markdown"] in capsys.readouterr().out
