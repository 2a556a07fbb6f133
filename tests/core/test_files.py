from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekd.core.errors import RecipeError, RunFolderError
from edgekd.core.files import atomic_path, atomic_write, contained, explained_os_errors


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_atomic_write_makes_folders_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    atomic_write(path, "é")
    atomic_write(path, b"new")
    assert path.read_bytes() == b"new"
    assert names(path.parent) == ["file"]


def test_text_is_written_as_utf8(tmp_path: Path) -> None:
    atomic_write(tmp_path / "file", "é\n")
    assert (tmp_path / "file").read_bytes() == b"\xc3\xa9\n"


def test_a_failing_body_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    atomic_write(path, "old")

    def body(temp: Path) -> None:
        temp.write_text("half of the n")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), atomic_path(path) as temp:
        body(temp)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


WRITER = """
import sys
from pathlib import Path
from edgekd.core.files import atomic_write
path, sizes = Path(sys.argv[1]), int(sys.argv[2])
print("ready", flush=True)
while True:
    for letter in b"ab":
        atomic_write(path, bytes([letter]) * sizes)
"""


@pytest.mark.parametrize("delay_ms", [1, 4, 9, 16, 33])
def test_a_killed_writer_leaves_one_whole_version(tmp_path: Path, delay_ms: int) -> None:
    path, size = tmp_path / "file", 1 << 20
    atomic_write(path, b"a" * size)
    command = [sys.executable, "-c", WRITER, str(path), str(size)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        time.sleep(delay_ms / 1e3)
        writer.send_signal(signal.SIGKILL)
    raw = path.read_bytes()
    assert raw in (b"a" * size, b"b" * size)
    atomic_write(path, "next")
    assert names(tmp_path) == ["file"]  # what the dead writer left is gone


def test_a_living_writers_temporary_file_is_left_alone(tmp_path: Path) -> None:
    other = tmp_path / f".file.{os.getppid()}.partial"
    other.write_text("somebody writes this")
    atomic_write(tmp_path / "file", "mine")
    assert other.read_text() == "somebody writes this"


def test_a_full_disk_is_explained_and_leaves_the_old_file(mounted: Callable[[str], Path]) -> None:
    disk = mounted("size=1m")
    path = disk / "file"
    atomic_write(path, "old")
    with pytest.raises(RunFolderError) as caught:
        atomic_write(path, b"x" * (2 << 20))
    assert caught.value.failed == f"The disk is full: {path} could not be written."
    assert caught.value.got.endswith(" bytes free")
    assert caught.value.todo.startswith("free some space and call the same command")
    assert caught.value.exit_code == 2
    assert path.read_text() == "old"
    assert names(disk) == ["file"]
    atomic_write(path, b"x" * (1 << 19))  # the failed attempt gave its space back


def test_a_read_only_disk_is_explained(mounted: Callable[[str], Path]) -> None:
    disk = mounted("size=1m")
    atomic_write(disk / "file", "old")
    mounted("remount,ro")
    with pytest.raises(RunFolderError) as caught:
        atomic_write(disk / "file", "new")
    assert caught.value.failed == f"The folder of {disk / 'file'} cannot be written to."
    assert caught.value.got == "Read-only file system"
    assert caught.value.todo == "choose another folder with --out"
    with pytest.raises(RunFolderError, match="Read-only file system"):
        atomic_write(disk / "new folder" / "file", "new")
    assert (disk / "file").read_text() == "old"


def test_a_folder_without_permission_is_explained(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o500)
    with pytest.raises(RunFolderError, match="Permission denied"):
        atomic_write(tmp_path / "file", "new")


def test_a_file_in_the_place_of_a_folder_is_explained(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("not a folder")
    for path in (tmp_path / "runs" / "file", tmp_path / "runs" / "digits" / "file"):
        with pytest.raises(RunFolderError) as caught:
            atomic_write(path, "new")
        assert caught.value.got.startswith(("Not a directory", "File exists"))
        assert str(tmp_path / "runs") in caught.value.got


def test_a_folder_in_the_place_of_the_file_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(RunFolderError, match="Is a directory"):
        atomic_write(tmp_path / "file", "new")
    assert names(tmp_path) == ["file"]


def test_a_name_too_long_is_explained(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="File name too long"):
        atomic_write(tmp_path / ("x" * 300), "new")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_every_way_of_being_full_has_the_same_text(tmp_path: Path, code: int) -> None:
    with pytest.raises(RunFolderError, match="The disk is full"), explained_os_errors(tmp_path):
        raise OSError(code, os.strerror(code))


def test_an_input_that_cannot_be_read_is_not_blamed_on_the_output(tmp_path: Path) -> None:
    out = tmp_path / "out" / "file"
    refusal = PermissionError(errno.EACCES, "Permission denied", "/elsewhere/input.npz")
    with pytest.raises(PermissionError), atomic_path(out):
        raise refusal
    assert names(out.parent) == []


def test_an_error_of_another_kind_passes(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Input/output"), explained_os_errors(tmp_path):
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_a_body_that_writes_nothing_is_our_own_bug(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "file"):
        pass


def test_contained_follows_paths_inside(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "link").symlink_to("sub")
    base = tmp_path.resolve()
    assert contained(tmp_path, "sub/../sub/x") == base / "sub" / "x"
    assert contained(tmp_path, "link/x") == base / "sub" / "x"


@pytest.mark.parametrize("relative", ["../x", "sub/../../x", "/etc/passwd", "out/x", "link"])
def test_contained_refuses_every_way_out(tmp_path: Path, relative: str) -> None:
    inner = tmp_path / "inner"
    (inner / "sub").mkdir(parents=True)
    (inner / "out").symlink_to(tmp_path)
    (inner / "link").symlink_to("/etc/passwd")
    with pytest.raises(RecipeError) as caught:
        contained(inner, relative)
    assert caught.value.failed == f"The path {relative!r} leaves its folder."
    assert caught.value.expected == f"a relative path inside {inner.resolve()}"


def test_contained_refuses_a_sibling_with_the_same_beginning(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with pytest.raises(RecipeError, match="leaves its folder"):
        contained(tmp_path / "run", "../run2/file")


def test_contained_refuses_links_in_a_circle_and_null_characters(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    for relative in ("a/x", "a\0b"):
        with pytest.raises(RecipeError, match="cannot be followed"):
            contained(tmp_path, relative)


@given(parts=st.lists(st.sampled_from(["a", "..", ".", "b", "", "/"]), max_size=8))
def test_what_contained_returns_is_inside(
    parts: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    base = tmp_path_factory.getbasetemp().resolve() / "base"
    try:
        full = contained(base, "/".join(parts))
    except RecipeError:
        return
    assert os.path.commonpath([full, base]) == str(base)
