"""A run that is killed again and again ends with the weights and decisions of a quiet one."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from edgekd.core.ledger import Ledger

if TYPE_CHECKING:
    from tests.faults.conftest import Said

#: what a clock measures: whole stages, and single figures; the recipe decides everything else
MEASURED = ("profile", "memory/")
TIMES = {"train_s", "time_us"}


def start(recipe: Path, out: Path) -> subprocess.Popen[bytes]:
    code = "from edgekd.cli.main import main; main()"
    command = [sys.executable, "-c", code, "compress", str(recipe), "--out", str(out)]
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, stdout=quiet, stderr=quiet, cwd=recipe.parent)


def kill_in(process: subprocess.Popen[bytes], out: Path, stage: str, after_s: float) -> None:
    """SIGKILL the run shortly after it has said that it starts a stage."""
    ledger = out / "ledger.jsonl"
    while process.poll() is None:
        lines = ledger.read_text().splitlines() if ledger.exists() else []
        if any('"stage_started"' in line and f'"name":"{stage}' in line for line in lines):
            break
        time.sleep(0.001)
    assert process.poll() is None, f"the run ended before the stage {stage}"
    time.sleep(after_s)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=60)
    assert process.returncode == -signal.SIGKILL


def decided(out: Path) -> dict[str, Any]:
    """Key, files and result of every stage that no clock decides."""
    done = [e for e in Ledger(out / "ledger.jsonl").events if e["event"] == "stage_done"]
    return {
        e["name"]: (e["key"], e["files"], timeless(e["result"]))
        for e in done
        if not e["name"].startswith(MEASURED)
    }


def timeless(value: Any) -> Any:
    """The value without its times, and without the counters in OpenVINO's names of own nodes."""
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if k not in TIMES}
    if isinstance(value, str):
        return re.sub(r"_\d+\b", "", value)
    return [timeless(v) for v in value] if isinstance(value, list) else value


def compare(
    edgekd: Callable[..., Said], recipe: Path, folder: Path, kills: list[tuple[str, float]]
) -> None:
    def run_to_the_end(out: Path) -> dict[str, Any]:
        said = edgekd("compress", recipe, "--out", out, "--json")
        assert said.code == 0, said.err
        verdict: dict[str, Any] = json.loads(said.out)
        return verdict

    quiet = run_to_the_end(folder / "quiet")
    out = folder / "killed"
    for stage, after_s in kills:
        kill_in(start(recipe, out), out, stage, after_s)
    verdict = run_to_the_end(out)
    assert decided(out) == decided(folder / "quiet")
    for one, other in zip(verdict["targets"], quiet["targets"], strict=True):
        for same in ("target", "accuracy", "artifact", "size_bytes", "kernels", "parity"):
            assert one[same] == other[same]
    assert list(out.rglob("*.partial")) == []
    assert json.loads((out / "verdict.json").read_text()) == verdict
    assert (out / "report.html").stat().st_size > 10_000


def test_two_kills_change_nothing(
    edgekd: Callable[..., Said], write_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    kills = [("distilled/seed-0", 0.01), ("export/artifact", 0.2)]
    compare(edgekd, write_recipe(), tmp_path, kills)


@pytest.mark.slow
def test_a_kill_in_every_stage_changes_nothing(
    edgekd: Callable[..., Said], write_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    recipe = write_recipe({"seeds": 2, "targets": ["x86-onnxruntime-int8", "x86-openvino-int8"]})
    kills = [
        ("teacher", 0.02),
        ("teacher", 2.0),
        ("control/seed-0", 0.0),
        ("distilled/seed-1", 0.05),
        ("post_training/seed-0", 0.0),
        ("quantized_distillation/seed-0", 0.1),
        ("export/artifact/x86-openvino-int8", 0.3),
        ("export/teacher", 0.1),
        ("proof", 0.0),
        ("profile", 0.3),
        ("memory", 0.2),
    ]
    compare(edgekd, recipe, tmp_path, kills)
