"""The bench behind the table of foreign models must not rot."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.shared


def test_it_runs_resumes_and_names_refusals(
    tmp_path: Path,
    repo_root: Path,
    shared_data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.syspath_prepend(repo_root / "bench")
    bench = importlib.import_module("bench_foreign_models")
    out = tmp_path / "models.json"
    arguments = ["--shared", str(shared_data), "--out", str(out), "--only", "genai-tiny"]
    assert bench.main([*arguments, "--samples", "8", "--seconds", "0"]) == 0
    first, second = json.loads(out.read_text())["rows"]
    assert (first["runtime"], second["runtime"]) == ("ONNX Runtime", "OpenVINO")
    assert first["kernels"]["int8"] == 16
    assert first["calibration"]["real"]
    assert first["latency_ms"]["float"]["p90"]["certified"] > 0
    assert "EmbedLayerNormalization" in second["why"]
    table = json.loads(out.read_text())["markdown"]
    assert table.count("\n| `") == 2
    assert "| refused |" in table
    assert "bytes of 8 SST-2 sentences as tokens; the model's weights are random" in table
    # what is finished is not done again
    monkeypatch.setattr(bench, "one", None)
    assert bench.main(arguments) == 0
    assert table in capsys.readouterr().out
    assert json.loads(out.read_text())["markdown"].splitlines()[:4] == table.splitlines()[:4]
