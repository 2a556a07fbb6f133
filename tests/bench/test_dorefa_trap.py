"""The bench of the published temperature trap must not rot."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
import torch


@pytest.mark.slow
@pytest.mark.shared
def test_every_arm_is_trained_and_shown(
    tmp_path: Path, repo_root: Path, shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = torch.get_num_threads()
    monkeypatch.syspath_prepend(str(repo_root / "bench"))
    bench = runpy.run_path(str(repo_root / "bench" / "dorefa_trap.py"))
    try:
        runs = tmp_path / "dorefa_trap"
        assert bench["main"](["--data", str(shared_data), "--runs", str(runs), "--smoke"]) == 0
    finally:
        torch.set_num_threads(threads)
    found = json.loads(runs.with_suffix(".json").read_text())
    shown = [(row["low"], row["temperature"]) for row in found["rows"]]
    assert shown == [(low, t) for low in (False, True) for t in bench["TEMPERATURES"]]
    assert found["markdown"].count("lets it end") == len(shown)  # one epoch is too few to judge


def test_weights_are_eight_levels_from_minus_one_to_one(
    repo_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(repo_root / "bench"))
    bench = runpy.run_path(str(repo_root / "bench" / "dorefa_trap.py"))
    conv = bench["DoReFaConv"](1, 1, 10, bias=False)
    with torch.no_grad():
        conv.weight.copy_(torch.linspace(-9, 9, 100).reshape(1, 1, 10, 10))
    basis = torch.eye(100).reshape(100, 1, 10, 10)
    weights = conv(basis)
    assert torch.allclose(weights.unique(), torch.arange(-7, 8, 2) / 7)
    weights.sum().backward()
    assert bool((conv.weight.grad > 0).any())  # straight through the rounding
