"""A runtime that is a program of the device, called once: it builds, times and explains by itself.

What it is called with is said by the other side, word by word; no shell reads it. What is built
is kept beside the requests of one connection, so that all of them are about the same build.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .runtimes import RefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_LOG = "program.log"
_TAIL_BYTES = 1 << 15
_REPORT_BYTES = 64 << 20


def call(
    request: Mapping[str, Any], arrays: Mapping[str, Any], folder: Path
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Call a program in a folder of its own, after building what it needs.

    Args:
        request: ``program`` and the ``folders`` it may be in beside the path, its ``arguments``,
            the ``reports`` that it writes and, where it runs a model, ``build``: ``arguments``,
            the name of the ``model`` they read, of the ``result`` they write, and its ``key``.
        arrays: Files that it reads, by name.
        folder: Of the request.

    Returns:
        Exit ``code`` and the end of what it ``said``, and the reports by name.

    Raises:
        RefusedError: The program is not there, or wrote a report beyond measure.
    """
    program = _find(request["program"], request["folders"])
    work = folder / "work"
    work.mkdir()
    build = request.get("build")
    if build is not None:
        (model,) = request["models"]
        kept = folder.parent / "kept" / build["key"]
        if not kept.exists():
            _link(Path(model["file"]), work / build["model"])
            answer = _run(program, build["arguments"], work)
            if answer["code"]:
                return {**answer, "built": False}, {}
            kept.parent.mkdir(exist_ok=True)
            os.replace(str(work / build["result"]), str(kept))
        _link(kept, work / build["result"])
    for name, array in arrays.items():
        array.tofile(str(work / name))
    answer = _run(program, request["arguments"], work)
    reports = {}
    for name in request["reports"]:
        path = work / name
        if path.exists() and path.stat().st_size > _REPORT_BYTES:
            raise RefusedError("failed", f"{name} is larger than any report")
        reports[name] = path.read_bytes() if path.exists() else b""
    return {**answer, "built": True}, reports


def _find(name: str, folders: Sequence[str]) -> str:
    found = shutil.which(name) or shutil.which(name, path=os.pathsep.join(folders))
    if found is None:
        raise RefusedError("missing", f"the program {name}")
    return found


def _run(program: str, arguments: Sequence[str], work: Path) -> dict[str, Any]:
    log = work / _LOG
    with log.open("wb") as out:
        done = subprocess.run(
            [program, *arguments],
            cwd=str(work),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            check=False,
        )
    said = log.read_bytes()[-_TAIL_BYTES:].decode(errors="replace")
    return {"code": done.returncode, "said": said}


def _link(source: Path, path: Path) -> None:
    try:
        os.link(str(source), str(path))
    except OSError:  # a file system without hard links
        shutil.copyfile(str(source), str(path))
