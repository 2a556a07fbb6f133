"""Writing so that a kill at any instant leaves either the old file or the new one."""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import contextmanager, suppress
from glob import escape as glob_escape
from pathlib import Path
from typing import TYPE_CHECKING

from edgekd.core.errors import RecipeError, RunFolderError

if TYPE_CHECKING:
    from collections.abc import Iterator

_TEMP_SUFFIX = ".partial"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REFUSED = {errno.EROFS, errno.EACCES, errno.EPERM}
_WRONG_PLACE = {
    errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTEMPTY,
}  # fmt: skip


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success fsync it and rename it into place.

    A process killed in between leaves its temporary file; the next one removes it.

    Raises:
        RunFolderError: The folder is read-only or the disk is full; nothing is left behind.
    """
    temp = path.with_name(f".{path.name}.{os.getpid()}{_TEMP_SUFFIX}")
    try:
        with explained_os_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            _remove_orphans(path)
            yield temp
            fd = os.open(temp, os.O_RDONLY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
            temp.replace(path)
            sync_folder(path.parent)
    finally:
        with suppress(OSError):  # a read-only folder refuses even this, and hid the first error
            temp.unlink(missing_ok=True)


def atomic_write(path: Path, data: bytes | str) -> None:
    """Write `data` to `path` by temp + fsync + rename."""
    with atomic_path(path) as temp:
        temp.write_bytes(data.encode() if isinstance(data, str) else data)


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def explained_os_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write `path` into a RunFolderError.

    An OSError that names a file elsewhere (an input read meanwhile) passes as it is.
    """
    try:
        yield
    except OSError as e:
        if not _concerns(e, path):
            raise
        if e.errno in _FULL:
            free = shutil.disk_usage(_existing(path)).free
            raise RunFolderError(
                f"The disk is full: {path} could not be written.",
                got=f"{free} bytes free",
                todo="free some space and call the same command: finished stages are kept",
            ) from e
        if e.errno in _REFUSED | _WRONG_PLACE:
            detail = f" ({e.filename})" if e.errno in _WRONG_PLACE and e.filename else ""
            raise RunFolderError(
                f"The folder of {path} cannot be written to.",
                got=os.strerror(e.errno) + detail,
                todo="choose another folder with --out",
            ) from e
        raise


def contained(folder: Path, relative: str) -> Path:
    """`folder/relative`, refused if it leaves the folder, also through links.

    Raises:
        RecipeError: The path is absolute, escapes the folder or is no path at all.
    """
    base = folder.resolve()
    try:
        full = (base / relative).resolve()
    except (RuntimeError, ValueError, OSError) as e:  # links in a circle, or a null character
        raise RecipeError(
            f"The path {relative!r} cannot be followed.",
            expected=f"a relative path inside {base}",
            got=str(e),
        ) from e
    if Path(relative).is_absolute() or not full.is_relative_to(base):
        raise RecipeError(
            f"The path {relative!r} leaves its folder.",
            expected=f"a relative path inside {base}",
            got=str(full),
        )
    return full


def _concerns(error: OSError, path: Path) -> bool:
    if not isinstance(error.filename, str):  # a write or fsync, which only knows its descriptor
        return True
    named, place = Path(error.filename).absolute(), path.absolute()
    return named.is_relative_to(place.parent) or named in place.parents


def _remove_orphans(path: Path) -> None:
    """Remove what killed processes left; one that still writes keeps its file."""
    for orphan in path.parent.glob(f".{glob_escape(path.name)}.*{_TEMP_SUFFIX}"):
        pid = orphan.name.removesuffix(_TEMP_SUFFIX).rpartition(".")[2]
        if pid.isdecimal() and not _is_alive(int(pid)):
            orphan.unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # somebody else's process, or no process number
        return True
    return True


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path
