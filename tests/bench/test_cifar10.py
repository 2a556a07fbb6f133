"""The benches on CIFAR-10 must not rot."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch


@pytest.fixture
def script(repo_root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """Global names of a bench script, which imports its neighbours as a started script does."""
    threads = torch.get_num_threads()
    monkeypatch.syspath_prepend(str(repo_root / "bench"))
    yield lambda name: runpy.run_path(str(repo_root / "bench" / f"{name}.py"))
    torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.shared
def test_every_kind_of_part_is_made_once_and_shown(
    tmp_path: Path,
    script: Callable[[str], Any],
    shared_data: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    runs = tmp_path / "cifar10"
    floats = ["teacher", "student3-seed0", "student3-control-seed0"]
    first = ["--data", str(shared_data), "--runs", str(runs), "--smoke", "--parts", *floats]
    low = [f"student3-seed0-{m}-2bit" for m in ("post", "qd", "dq", "best")]
    low += ["student3-seed0-longer-32bit", "resnet20-w2a2"]
    then = ["--runs", str(runs), "--smoke", "--parts", *low]
    for _ in range(2):
        assert script("cifar10")["main"](first) == 0
        assert script("paper_students")["main"](then) == 0
    printed = capsys.readouterr().out
    assert [printed.count(f"{name}: test") for name in (*floats, *low)] == [1] * 9
    parts = {n: json.loads((runs / f"{n}.json").read_text()) for n in (*floats, *low)}
    assert all((runs / f"{name}.safetensors").is_file() for name in parts)
    assert parts["student3-seed0"]["objectives"]
    assert parts["student3-control-seed0"]["objectives"] == []
    assert parts[low[3]]["stored_bytes"] <= parts[low[1]]["stored_bytes"]
    tables = script("paper_tables")
    tables["write"](tables["Parts"](runs), tmp_path)
    found = json.loads((tmp_path / "paper_students.json").read_text())
    assert "student3-seed1" in found["missing"]
    assert low[0] not in found["missing"]
    assert "| 25-10-10-5 | 2 | edgekd |" in found["markdown"]
    assert (tmp_path / "resnet20_low_bits.json").is_file()


def _part(folder: Path, name: str, test: float, size: int = 30_000) -> None:
    facts = {"created_utc": "2026-01-01", "cpu": "c", "threads": 1, "torch": "t", "commit": "abc"}
    content = {"test": test, "stored_bytes": size, "parameters": 111_585, "provenance": facts}
    (folder / f"{name}.json").write_text(json.dumps(content))


def test_a_loss_is_against_the_float_student_of_the_same_seed(
    tmp_path: Path, script: Callable[[str], Any]
) -> None:
    tables = script("paper_tables")
    for seed, start, best, qd in ((0, 0.80, 0.79, 0.70), (1, 0.70, 0.68, 0.67)):
        _part(tmp_path, f"student3-seed{seed}", start)
        _part(tmp_path, f"student3-seed{seed}-best-2bit", best)
        _part(tmp_path, f"student3-seed{seed}-qd-2bit", qd)
    _part(tmp_path, "student3-seed2", 0.5)
    text = tables["paper_table"](tables["Parts"](tmp_path))
    assert "| 25-10-10-5 | 2 | edgekd | 73.50 (68.00 to 79.00) | 1.50 | 30.0 | 2 |" in text
    assert "loses 1.50 points, wanted at most 3.0: met; " in text
    assert "at most half of what QD and DQ lose, 3.25: met." in text
