"""Looks at an ONNX file before any runtime does: whole, and pointing at nothing but its own."""

from __future__ import annotations

import mmap
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING

from edgekd.backends._onnx.wire import MalformedError, Outline, TruncatedError, outline
from edgekd.core.errors import DataError, RecipeError
from edgekd.core.files import contained

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgekd.backends._onnx.wire import External

_WANTED = "a complete ONNX file"


def check(path: Path) -> Outline:
    """The outline of an ONNX file that is safe to hand to a runtime.

    Runtimes follow the `location` of external tensor data wherever it leads, so a file from
    elsewhere could read any file of the user's through ``../``, an absolute path or a link
    (CVE-2024-27318 and its successors); such files are refused here.

    Raises:
        DataError: The file is missing, empty, cut off, no ONNX, or points outside its folder, or
            a data file beside it is missing or cut off.
    """
    found = _outline(path)
    sizes: dict[str, int] = {}
    for external in found.externals:
        if external.location not in sizes:
            sizes[external.location] = _data_size(path, external.location)
        _check_stretch(path, external, sizes[external.location])
    return found


def check_one_file(model: bytes, path: Path) -> None:
    """Check a serialized model that is about to become the artifact at `path`.

    Raises:
        DataError: It is no complete ONNX model, or keeps weights in other files.
    """
    found = _explained(path, len(model), lambda: outline(model))
    if found.externals:
        raise DataError(
            f"The model for {path} keeps weights in another file, "
            f"{found.externals[0].location!r}.",
            expected="one file, so that its hash speaks for all of it",
            todo="save it without external data: onnx.save(onnx.load(path), path)",
        )


def total_bytes(path: Path) -> int:
    """Size of the file and of the data files beside it that it needs.

    Only ONNX files need any; what a runtime compiled one to is whole by itself.
    """
    if path.suffix != ".onnx" and path.is_file():
        return path.stat().st_size
    names = {external.location for external in check(path).externals}
    return path.stat().st_size + sum((path.parent / name).stat().st_size for name in names)


def _outline(path: Path) -> Outline:
    if not path.is_file():
        what = "is not a file" if path.exists() else "does not exist"
        raise DataError(f"{path} {what}.", expected=_WANTED, todo="check the path")
    try:
        size = path.stat().st_size
        if size == 0:
            return _explained(path, size, lambda: outline(b""))
        with path.open("rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _explained(path, size, lambda: outline(data))
    except OSError as e:
        raise DataError(f"{path} cannot be read.", got=str(e.strerror)) from e


def _explained(path: Path, size: int, read: Callable[[], Outline]) -> Outline:
    if size == 0:
        raise DataError(
            f"{path} is empty.",
            expected=_WANTED,
            got="0 bytes",
            todo="export or download it again",
        )
    try:
        return read()
    except TruncatedError as e:
        raise DataError(
            f"{path} is cut off.",
            expected=_WANTED,
            got=f"{size} bytes; {e}",
            todo="export or download it again",
        ) from e
    except MalformedError as e:
        raise DataError(
            f"{path} is not an ONNX file.",
            expected=_WANTED,
            got=str(e),
            todo="check that it is the .onnx itself, not an archive or a page around it",
        ) from e


def _data_size(path: Path, location: str) -> int:
    """Bytes in the data file `location` of the model at `path`."""
    folder = path.parent
    if not location or PureWindowsPath(location).drive or location.startswith("\\"):
        raise _outside(path, location, "no relative path")
    try:
        full = contained(folder, location)
    except RecipeError as e:
        raise _outside(path, location, e.got) from e
    if not full.is_file():
        raise DataError(
            f"{path} keeps its weights in a file that is not there.",
            expected=str(full),
            todo="put the data file beside the model",
        )
    if full.stat().st_nlink > 1:  # a link to a file elsewhere, which no path gives away
        raise _outside(path, location, f"{full} is a hard link")
    return full.stat().st_size


def _outside(path: Path, location: str, got: str) -> DataError:
    return DataError(
        f"{path} points at a file outside its folder: {location!r}.",
        expected="data files in the folder of the model, not linked from elsewhere",
        got=got,
        todo="if you trust the model, copy its data files beside it",
    )


def _check_stretch(path: Path, external: External, size: int) -> None:
    end = external.offset + (external.length or 0)
    if end > size:
        raise DataError(
            f"The data file {external.location!r} of {path} is cut off.",
            expected=f"at least {end} bytes",
            got=f"{size} bytes",
            todo="export or download it again",
        )
