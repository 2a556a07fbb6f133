"""Ctrl-C, kills at random instants, and a second command while the first one works."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.faults.test_kill import decided

if TYPE_CHECKING:
    from tests.faults.conftest import Said

Write = Callable[..., Path]
Command = Callable[..., "Said"]
Popen = subprocess.Popen[str]

#: trainings of a second and more, saved so often that a kill almost surely falls between two
LONG = {
    "distill.epochs": 60,
    "distill.checkpoint_every_s": 0.02,
    "distill.precision": "float32",
}


@contextmanager
def started(recipe: Path, out: Path) -> Iterator[Popen]:
    """The command in a process of its own; it is killed at the end if it still runs."""
    code = "from edgekd.cli.main import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "compress", str(recipe), "--out", str(out)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=recipe.parent,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(process: Popen, condition: Callable[[], bool]) -> None:
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.002)


def begun(out: Path, stage: str) -> Callable[[], bool]:
    """Whether the run has begun a stage."""
    ledger = out / "ledger.jsonl"
    words = ('"event":"stage_started"', f'"name":"{stage}')

    def condition() -> bool:
        lines = ledger.read_text().splitlines() if ledger.exists() else []
        return any(all(word in line for word in words) for line in lines)

    return condition


def half_trained(out: Path, stage: str) -> Callable[[], bool]:
    """Whether a training has saved itself and is not done."""

    def condition() -> bool:
        found = (out / "stages").glob(f"{stage}-*/step-*.safetensors")
        return any(int(path.stem.removeprefix("step-")) > 100 for path in found)

    return condition


def grown(path: Path) -> Callable[[], bool]:
    """Whether a file has grown since this was called."""
    before = path.stat().st_size if path.exists() else 0
    return lambda: path.exists() and path.stat().st_size > before


@pytest.mark.slow
def test_a_training_is_interrupted_continued_and_ends_the_same(
    write_recipe: Write, edgekd: Command, tmp_path: Path
) -> None:
    recipe, out = write_recipe(LONG), tmp_path / "out"
    with started(recipe, out) as process:
        wait_for(process, half_trained(out, "control.seed-0"))
        # a second command in the same folder is refused, and does not disturb the first
        second = edgekd("compress", recipe, "--out", out)
        assert second.code == 2
        assert second.err.splitlines() == [
            f"Another edgekd is working in {out}.",
            f"  got:      the lock is held by process {process.pid}",
            "  to do:    wait for it to end, or choose another folder with --out",
        ]
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        err = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert err.splitlines()[-1] == "interrupted; call the same command to continue"
    assert "Traceback" not in err
    assert not (out / "verdict.json").exists()

    again = edgekd("compress", recipe, "--out", out)
    assert again.code == 0, again.err
    assert "control/seed-0: continues where it was stopped" in again.err
    assert "control, seed 0: continuing after step" in again.err
    assert edgekd("compress", recipe, "--out", tmp_path / "quiet").code == 0
    assert decided(out) == decided(tmp_path / "quiet")


@pytest.mark.parametrize(
    "stage",
    [
        "export/artifact",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("teacher", "quantized_distillation", "proof", "profile", "memory")
        ),
    ],
)
def test_ctrl_c_in_any_stage_is_one_line_and_130(
    stage: str, write_recipe: Write, edgekd: Command, tmp_path: Path
) -> None:
    changes = {"profile.min_duration_s": 5} if stage == "profile" else {}
    recipe, out = write_recipe(changes), tmp_path / "out"
    with started(recipe, out) as process:
        wait_for(process, begun(out, stage))
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        err = process.communicate(timeout=60)[1]
    assert process.returncode == 130, err
    assert err.splitlines()[-1] == "interrupted; call the same command to continue"
    assert "Traceback" not in err
    assert "Exception ignored" not in err
    assert list(out.rglob("*.partial")) == []
    quick = write_recipe({"profile.min_duration_s": 0})
    assert edgekd("compress", quick, "--out", out).code == 0


@pytest.mark.slow
def test_ten_kills_at_random_instants_change_nothing(
    write_recipe: Write, edgekd: Command, tmp_path: Path
) -> None:
    recipe = write_recipe(
        {**LONG, "seeds": 2, "targets": ["x86-onnxruntime-int8", "x86-openvino-int8"]}
    )
    start_s = time.perf_counter()
    quiet = edgekd("compress", recipe, "--out", tmp_path / "quiet", "--json")
    length_s = time.perf_counter() - start_s
    assert quiet.code == 0, quiet.err
    draw, kills, out = random.Random(20), 0, tmp_path / "killed"
    while kills < 10:
        with started(recipe, out) as process:
            # from when it begins to work, so that every attempt gets somewhere new
            wait_for(process, grown(out / "ledger.jsonl"))
            time.sleep(draw.uniform(0, length_s / 6))
            if process.poll() is not None:
                break
            process.kill()
            kills += 1
    assert kills >= 3
    last = edgekd("compress", recipe, "--out", out, "--json")
    assert last.code == 0, last.err
    assert decided(out) == decided(tmp_path / "quiet")
    assert list(out.rglob("*.partial")) == []
    for one, other in zip(
        json.loads(last.out)["targets"], json.loads(quiet.out)["targets"], strict=True
    ):
        for same in ("target", "accuracy", "artifact", "size_bytes", "kernels", "parity"):
            assert one[same] == other[same]
