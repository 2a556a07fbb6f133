from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgekd.core.errors import RunFolderError
from edgekd.core.progress import Silent
from edgekd.core.stages import Run


class Listening(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        self.lines.append(message)


def work(value: int, calls: list[int]) -> Any:
    def do(folder: Path) -> tuple[dict[str, Any], list[str]]:
        calls.append(value)
        (folder / "out.txt").write_text(str(value))
        return {"value": value}, ["out.txt"]

    return do


def test_the_same_needs_are_done_once(tmp_path: Path) -> None:
    calls: list[int] = []
    for _ in range(2):
        with Run(tmp_path / "run", Silent()) as run:
            stage = run.stage("a", {"x": 1}, work(7, calls))
            assert stage.result == {"value": 7}
            assert stage.file("out.txt").read_text() == "7"
    assert calls == [7]
    assert (stage.reused, stage.reason) == (True, "same")


def test_a_change_redoes_the_stage_and_names_the_field(tmp_path: Path) -> None:
    calls: list[int] = []
    heard = Listening()
    with Run(tmp_path, heard) as run:
        run.stage("a", {"train": {"epochs": 40}, "seed": 0}, work(1, calls))
        stage = run.stage("a", {"train": {"epochs": 5}, "seed": 0}, work(2, calls))
        back = run.stage("a", {"train": {"epochs": 40}, "seed": 0}, work(3, calls))
    assert calls == [1, 2]
    assert stage.reason == "train.epochs changed: 40 -> 5"
    assert heard.lines == ["a: train.epochs changed: 40 -> 5"]
    assert back.reused  # the first result is still there
    assert back.result == {"value": 1}


@pytest.mark.parametrize("damage", ["unlink", "write_text"])
def test_a_damaged_file_is_made_again(tmp_path: Path, damage: str) -> None:
    calls: list[int] = []
    with Run(tmp_path, Silent()) as run:
        path = run.stage("a", {}, work(1, calls)).file("out.txt")
        path.unlink() if damage == "unlink" else path.write_text("other")
        again = run.stage("a", {}, work(1, calls))
    assert calls == [1, 1]
    assert again.reason == "its file out.txt is missing or damaged"


def test_work_that_fails_is_not_done_and_keeps_its_folder(tmp_path: Path) -> None:
    def fails(folder: Path) -> tuple[dict[str, Any], list[str]]:
        (folder / "checkpoint").write_text("half")
        raise RuntimeError("killed")

    seen = []

    def continues(folder: Path) -> tuple[dict[str, Any], list[str]]:
        seen.append((folder / "checkpoint").read_text())
        return {}, []

    with Run(tmp_path, Silent()) as run, pytest.raises(RuntimeError):
        run.stage("a", {}, fails)
    with Run(tmp_path, Silent()) as run:
        stage = run.stage("a", {}, continues)
    assert seen == ["half"]
    assert stage.reason == "continues where it was stopped"


def test_two_runs_in_one_folder_are_refused(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from edgekd.core.stages import Run;"
        "from edgekd.core.progress import Silent; run = Run(Path(sys.argv[1]), Silent());"
        "print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "held\n"
            with pytest.raises(RunFolderError) as caught:
                Run(tmp_path, Silent())
        finally:
            other.kill()
    assert f"Another edgekd is working in {tmp_path}" in str(caught.value)
    assert f"the lock is held by process {other.pid}" in str(caught.value)
    with Run(tmp_path, Silent()):
        pass  # a killed run holds nothing


def test_an_undeclared_file_is_our_own_mistake(tmp_path: Path) -> None:
    with Run(tmp_path, Silent()) as run:
        stage = run.stage("a", {}, work(1, []))
    with pytest.raises(KeyError, match="declared"):
        stage.file("other.txt")
