"""Full and read-only disks in the middle of a run, and Ctrl-C."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.faults.conftest import Said

Write = Callable[..., Path]
Command = Callable[..., "Said"]


def test_a_disk_that_fills_up_is_explained_and_the_run_continues_when_there_is_room(
    write_recipe: Write, edgekd: Command, mounted: Callable[[str], Path]
) -> None:
    recipe = write_recipe()
    disk = mounted("size=40k")
    told = []
    for size_kib in range(80, 4000, 40):
        said = edgekd("compress", recipe, "--out", disk / "run")
        if said.code == 0:
            break
        assert said.code == 2, said.err
        assert "The disk is full: " in said.err
        assert "call the same command: finished stages are kept" in said.err
        told.append(said.err)
        mounted(f"remount,size={size_kib}k")
    assert said.code == 0
    assert len(told) > 2
    assert "met" in said.out
    assert list(disk.rglob("*.partial")) == []


def test_a_full_disk_while_the_report_is_written_leaves_the_old_one_whole(
    write_recipe: Write, edgekd: Command, mounted: Callable[[str], Path]
) -> None:
    recipe = write_recipe()
    disk = mounted("size=8m")
    out = disk / "run"
    assert edgekd("compress", recipe, "--out", out).code == 0
    names = ("report.json", "report.html", "verdict.json")
    before = {name: (out / name).read_bytes() for name in names}
    # room for the ledger's next line, not for a report
    filler, free = disk / "filler", shutil.disk_usage(disk).free
    filler.write_bytes(bytes(free - 8192))
    said = edgekd("compress", recipe, "--out", out, "--budget", "p90<=0.00001ms")
    assert said.code == 2, said.err
    assert said.err.startswith("The disk is full: ")
    assert "bytes free" in said.err
    assert {name: (out / name).read_bytes() for name in names} == before
    assert list(disk.rglob("*.partial")) == []
    filler.unlink()
    assert edgekd("compress", recipe, "--out", out, "--budget", "p90<=0.00001ms").code == 1
    assert b'"met": false' in (out / "verdict.json").read_bytes()


def test_a_finished_run_on_a_disk_that_became_read_only_is_left_alone(
    write_recipe: Write, edgekd: Command, mounted: Callable[[str], Path]
) -> None:
    recipe = write_recipe()
    out = mounted("size=8m") / "run"
    assert edgekd("compress", recipe, "--out", out).code == 0
    mounted("remount,ro")
    said = edgekd("compress", recipe, "--out", out)
    assert said.code == 2
    assert said.err.splitlines()[:2] == [
        f"The folder of {out / 'lock'} cannot be written to.",
        "  got:      Read-only file system",
    ]


def test_a_read_only_folder_is_refused(
    write_recipe: Write, edgekd: Command, mounted: Callable[[str], Path]
) -> None:
    recipe = write_recipe()
    disk = mounted("size=1m")
    mounted("remount,ro")
    said = edgekd("compress", recipe, "--out", disk / "run")
    assert said.code == 2
    assert "cannot be written to" in said.err
    assert "Read-only file system" in said.err
    assert "choose another folder with --out" in said.err


def test_a_folder_without_permission_is_refused(
    write_recipe: Write, edgekd: Command, tmp_path: Path
) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    (tmp_path / "out").mkdir(mode=0o500)
    said = edgekd("compress", write_recipe(), "--out", tmp_path / "out")
    assert said.code == 2
    assert "Permission denied" in said.err
