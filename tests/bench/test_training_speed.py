"""The bench that makes the training-speed number must not rot."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch


def _load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_runs_and_keeps_every_sample(
    tmp_path: Path, repo_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = _load(repo_root / "bench" / "bench_training_speed.py")
    out, threads = tmp_path / "speed.json", torch.get_num_threads()
    try:
        assert bench.main(["--smoke", "--threads", "1", "--out", str(out)]) == 0
    finally:
        torch.set_num_threads(threads)
    report = json.loads(out.read_text())
    assert len(report["samples_ns"]) == 4
    assert all(len(samples) == 1 for samples in report["samples_ns"].values())
    plain, *_, best = report["median_ms"].values()
    assert report["ratio"] == pytest.approx(plain / (best + report["teacher_share_ms"]))
    assert report["machine"]["threads"] == 1
    assert 0 < report["macs"]["student"] <= report["macs"]["teacher"] / 10
    assert report["markdown"] in capsys.readouterr().out
