from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edgekd.core.errors import DeviceError, RunFolderError
from edgekd.core.progress import Silent
from edgekd.core.stages import Run


class Spoken(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        self.lines.append(message)


def work(text: str = "data", calls: list[Path] | None = None) -> Callable[[Path], Any]:
    def do(folder: Path) -> tuple[dict[str, Any], list[str]]:
        if calls is not None:
            calls.append(folder)
        (folder / "out.txt").write_text(text)
        return {"score": 0.5, "shape": (1, 2)}, ["out.txt"]

    return do


def never(folder: Path) -> tuple[dict[str, Any], list[str]]:
    raise AssertionError(f"{folder} should have been reused")


def test_a_finished_stage_is_reused_by_the_next_run(tmp_path: Path) -> None:
    with Run(tmp_path / "run", Silent()) as run:
        first = run.stage("teacher", {"epochs": 1}, work())
        again = run.stage("teacher", {"epochs": 1}, never)
    with Run(tmp_path / "run", Silent()) as run:
        later = run.stage("teacher", {"epochs": 1}, never)
    assert (first.reused, again.reused, later.reused) == (False, True, True)
    assert (first.reason, later.reason) == ("first time", "same")
    assert first.result == later.result == {"score": 0.5, "shape": [1, 2]}
    assert (first.key, first.files) == (later.key, later.files)
    assert later.file("out.txt").read_text() == "data"
    assert [s.name for s in run.stages] == ["teacher"]


def test_a_changed_need_redoes_the_stage_and_says_which(tmp_path: Path) -> None:
    progress = Spoken()
    with Run(tmp_path, progress) as run:
        run.stage("student", {"train": {"epochs": 1, "rate": 0.1}, "data": "aa"}, work("one"))
    with Run(tmp_path, progress) as run:
        two = run.stage(
            "student", {"train": {"epochs": 2, "rate": 0.1}, "data": "aa"}, work("two")
        )
        back = run.stage("student", {"train": {"epochs": 1, "rate": 0.1}, "data": "aa"}, never)
    assert two.reason == "train.epochs changed: 1 -> 2"
    assert progress.lines == ["student: train.epochs changed: 1 -> 2"]
    assert back.file("out.txt").read_text() == "one"


def test_two_schemes_under_one_name_are_no_change_of_each_other(tmp_path: Path) -> None:
    first, second = {"scheme": "a", "epochs": 1}, {"scheme": "b", "epochs": 1}
    with Run(tmp_path, Silent()) as run:
        assert run.stage("student", first, work()).reason == "first time"
        assert run.stage("student", second, work()).reason == "first time"
    with Run(tmp_path, Silent()) as run:
        for needs in (first, second):
            again = run.stage("student", {**needs, "epochs": 2}, work())
            assert again.reason == "epochs changed: 1 -> 2"


def test_a_need_that_appears_or_grows_long_is_still_one_line(tmp_path: Path) -> None:
    with Run(tmp_path, Silent()) as run:
        run.stage("a", {"x": 1}, work())
    with Run(tmp_path, Silent()) as run:
        assert run.stage("a", {"x": 1, "y": 2}, work()).reason == "y changed: null -> 2"
    with Run(tmp_path, Silent()) as run:
        long = run.stage("a", {"x": "z" * 500}, work())
    assert len(long.reason) < 80


def test_a_hash_is_shown_by_its_first_digits(tmp_path: Path) -> None:
    with Run(tmp_path, Silent()) as run:
        run.stage("a", {"data": "0a" * 32}, work())
    with Run(tmp_path, Silent()) as run:
        again = run.stage("a", {"data": "f1" * 32}, work())
    assert again.reason == "data changed: 0a0a0a0a0a0a -> f1f1f1f1f1f1"


@pytest.mark.parametrize("damage", ["changed", "gone"])
def test_a_damaged_file_redoes_its_stage(tmp_path: Path, damage: str) -> None:
    with Run(tmp_path, Silent()) as run:
        path = run.stage("a", {"x": 1}, work()).file("out.txt")
        path.unlink() if damage == "gone" else path.write_text("dat4")
        again = run.stage("a", {"x": 1}, work())
    assert again.reason == "its file out.txt is missing or damaged"
    assert again.file("out.txt").read_text() == "data"


def test_an_error_leaves_the_stage_open_and_the_next_call_continues_in_its_folder(
    tmp_path: Path,
) -> None:
    folders: list[Path] = []

    def fail(folder: Path) -> tuple[dict[str, Any], list[str]]:
        folders.append(folder)
        (folder / "checkpoint").write_text("epoch 3")
        raise ZeroDivisionError

    with Run(tmp_path, Silent()) as run, pytest.raises(ZeroDivisionError):
        run.stage("a", {"x": 1}, fail)
    with Run(tmp_path, Silent()) as run:
        done = run.stage("a", {"x": 1}, work(calls=folders))
    assert folders[0] == folders[1]
    assert done.reason == "continues where it was stopped"
    assert (done.folder / "checkpoint").read_text() == "epoch 3"


KILLED = """
import os, signal, sys
from pathlib import Path
from edgekd.core.progress import Silent
from edgekd.core.stages import Run

def work(folder):
    (folder / "checkpoint").write_text("half")
    print("in stage", flush=True)
    signal.pause()

with Run(Path(sys.argv[1]), Silent()) as run:
    run.stage("first", {"x": 1}, lambda f: ({}, []))
    run.stage("second", {"x": 1}, work)
"""


@contextmanager
def running(folder: Path) -> Any:
    """Another process that holds the folder, in the middle of its second stage."""
    command = [sys.executable, "-c", KILLED, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "in stage\n"
            yield process
        finally:
            process.send_signal(signal.SIGKILL)


def test_a_failure_is_recorded_with_its_words(tmp_path: Path) -> None:
    def fails(folder: Path) -> tuple[dict[str, Any], list[str]]:
        raise DeviceError("pi does not answer any more.", todo="check the device")

    with Run(tmp_path, Silent()) as run:
        with pytest.raises(DeviceError):
            run.stage("profile", {"a": 1}, fails)
        failed = run.ledger.last("stage_failed", name="profile")
        assert failed is not None
        assert failed["error"] == "pi does not answer any more.\n  to do:    check the device"
        assert run.ledger.last("stage_done", name="profile") is None
        assert not run.stage("profile", {"a": 1}, work()).reused


def test_two_runs_in_one_folder_are_refused_by_name_of_the_process(tmp_path: Path) -> None:
    with running(tmp_path) as process:
        with pytest.raises(RunFolderError) as caught:
            Run(tmp_path, Silent())
        assert caught.value.message.splitlines() == [
            f"Another edgekd is working in {tmp_path}.",
            f"  got:      the lock is held by process {process.pid}",
            "  to do:    wait for it to end, or choose another folder with --out",
        ]


def test_a_killed_run_frees_its_folder_and_continues(tmp_path: Path) -> None:
    with running(tmp_path):
        pass
    with Run(tmp_path, Silent()) as run:
        assert run.stage("first", {"x": 1}, never).reused
        second = run.stage("second", {"x": 1}, work())
    assert second.reason == "continues where it was stopped"
    assert (second.folder / "checkpoint").read_text() == "half"


def test_a_run_in_this_process_is_refused_too_and_free_afterwards(tmp_path: Path) -> None:
    refused = pytest.raises(RunFolderError, match=f"held by process {os.getpid()}")
    with Run(tmp_path, Silent()), refused:
        Run(tmp_path, Silent())
    with Run(tmp_path, Silent()) as run:
        run.stage("a", {}, work())


def test_a_damaged_ledger_is_refused_and_the_lock_is_freed(tmp_path: Path) -> None:
    with Run(tmp_path, Silent()) as run:
        run.stage("a", {}, work())
    path = tmp_path / "ledger.jsonl"
    good = path.read_bytes()
    path.write_bytes(good.replace(b"stage_started", b"stage_start3d"))
    for _ in range(2):
        with pytest.raises(RunFolderError, match="is damaged at line 1"):
            Run(tmp_path, Silent())
    path.write_bytes(good)
    with Run(tmp_path, Silent()) as run:
        assert run.stage("a", {}, never).reused


def test_a_full_disk_in_the_middle_of_a_stage_is_explained_and_continued(
    mounted: Callable[[str], Path],
) -> None:
    disk = mounted("size=256k")

    def fill(folder: Path) -> tuple[dict[str, Any], list[str]]:
        (folder / "big").write_bytes(b"x" * (1 << 20))
        return {}, []

    with Run(disk / "run", Silent()) as run:
        run.stage("a", {"x": 1}, work())
        with pytest.raises(RunFolderError, match="The disk is full"):
            run.stage("b", {"x": 1}, fill)
    mounted("remount,size=4m")
    with Run(disk / "run", Silent()) as run:
        assert run.stage("a", {"x": 1}, never).reused
        assert run.stage("b", {"x": 1}, fill).reason.startswith(("continues", "first time"))


def test_a_read_only_disk_is_explained(mounted: Callable[[str], Path]) -> None:
    disk = mounted("size=256k")
    mounted("remount,ro")
    with pytest.raises(RunFolderError) as caught:
        Run(disk / "run", Silent())
    assert caught.value.got == "Read-only file system"
    assert caught.value.todo == "choose another folder with --out"


def test_a_file_in_the_place_of_the_folder_is_explained(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(RunFolderError, match="cannot be written to"):
        Run(tmp_path / "run", Silent())


def test_a_file_nobody_declared_is_our_own_bug(tmp_path: Path) -> None:
    with Run(tmp_path, Silent()) as run:
        stage = run.stage("a", {}, work())
    with pytest.raises(KeyError, match=r"declared \['out\.txt'\], not 'other'"):
        stage.file("other")
