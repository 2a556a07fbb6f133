"""Writing so that a kill at any instant leaves either the old file or the new one."""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from edgekd.core.errors import RecipeError, RunFolderError

if TYPE_CHECKING:
    from collections.abc import Iterator

_TEMP_SUFFIX = ".partial"


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success fsync it and rename it into place.

    Raises:
        RunFolderError: The folder is read-only or the disk is full; nothing is left behind.
    """
    temp = path.with_name(f".{path.name}.{os.getpid()}{_TEMP_SUFFIX}")
    try:
        with explained_os_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temp
            fd = os.open(temp, os.O_RDONLY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
            temp.replace(path)
            sync_folder(path.parent)
    finally:
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
    """Turn the operating system's refusals into a RunFolderError about `path`."""
    try:
        yield
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT):
            free = shutil.disk_usage(_existing(path)).free
            raise RunFolderError(
                f"The disk is full: {path} could not be written.",
                got=f"{free} bytes free",
                todo="free some space and call the same command: finished stages are kept",
            ) from e
        if e.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise RunFolderError(
                f"The folder of {path} cannot be written to.",
                got=os.strerror(e.errno),
                todo="choose another folder with --out",
            ) from e
        raise


def contained(folder: Path, relative: str) -> Path:
    """`folder/relative`, refused if it leaves the folder, also through links.

    Raises:
        RecipeError: The path is absolute or escapes the folder.
    """
    base = folder.resolve()
    full = (base / relative).resolve()
    if Path(relative).is_absolute() or not full.is_relative_to(base):
        raise RecipeError(
            f"The path {relative!r} leaves its folder.",
            expected=f"a relative path inside {base}",
            got=str(full),
        )
    return full


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path
