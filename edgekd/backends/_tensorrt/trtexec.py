"""The program trtexec: where it is, which version, and one call of it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from edgekd.core.errors import DeviceError, MissingDependencyError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Sequence

PROGRAM = "trtexec"
#: where JetPack and NVIDIA's Debian packages put it, beside the path
USUAL_FOLDER = "/usr/src/tensorrt/bin"
_BANNER = re.compile(r"\[TensorRT v(\d{4,6})\]")
_TIMEOUT_S = 1800.0
_LOG = "trtexec.log"
_LOG_TAIL_BYTES = 1 << 16
_ERROR = re.compile(r"\[E\] (?:\[TRT\] )?(.+)")
_LONGEST = 300


def find() -> Path:
    """The program, on the path or where NVIDIA puts it.

    Raises:
        MissingDependencyError: It is in neither place.
    """
    found = shutil.which(PROGRAM) or shutil.which(PROGRAM, path=USUAL_FOLDER)
    if found is None:
        raise MissingDependencyError(
            f"The backend 'tensorrt' needs the program {PROGRAM}, which is not on this machine.",
            expected=f"{PROGRAM} on the path or in {USUAL_FOLDER}",
            todo="install TensorRT (JetPack has it), or take the target out of the recipe",
        )
    return Path(found)


def version(program: Path) -> tuple[int, int, int]:
    """Major, minor and patch, as the program's banner says them.

    Raises:
        DeviceError: It does not run, or says something else.
    """
    try:
        done = subprocess.run(
            [str(program), "--help"],
            capture_output=True,
            timeout=60,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as e:
        raise DeviceError(f"{program} does not run.", got=str(e)) from e
    text = (done.stdout + done.stderr).decode(errors="replace")
    return told_version(text or f"nothing, exit code {done.returncode}", str(program))


def told_version(said: str, program: str) -> tuple[int, int, int]:
    """Major, minor and patch in what the program says.

    Args:
        said: On its standard output.
        program: Which, for the error.

    Raises:
        DeviceError: It says something else.
    """
    banner = _BANNER.search(said)
    if banner is None:
        raise DeviceError(
            f"{program} does not tell its version.",
            expected="a line with [TensorRT v100300]",
            got=" ".join(said.split())[:_LONGEST],
        )
    number = int(banner[1])
    major, rest = divmod(number, 10_000 if number >= 100_000 else 1000)  # v8601 is 8.6.1
    return major, rest // 100, rest % 100


def call(program: Path, arguments: Sequence[str], folder: Path) -> None:
    """Run the program in `folder`.

    Raises:
        UnsupportedError: It says an error.
        DeviceError: It died or took too long.
    """
    log = folder / _LOG
    try:
        with log.open("wb") as out:
            done = subprocess.run(
                [str(program), *arguments],
                cwd=folder,
                stdout=out,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                timeout=_TIMEOUT_S,
                check=False,
            )
    except subprocess.TimeoutExpired as e:
        raise DeviceError(
            f"{PROGRAM} took too long.", expected=f"an end within {_TIMEOUT_S:g} s"
        ) from e
    check_end(done.returncode, _tail(log), arguments)


def check_end(code: int, said: str, arguments: Sequence[str], *, place: str = "") -> None:
    """Raise unless a call ended well.

    Args:
        code: Its exit code; negative for the signal that ended it.
        said: The end of what it wrote.
        arguments: That it was called with, for what to do.
        place: The device; empty for this machine.

    Raises:
        UnsupportedError: It says an error.
        DeviceError: It died.
    """
    if code == 0:
        return
    program = f"{PROGRAM} on {place}" if place else PROGRAM
    errors = _ERROR.findall(said)
    if code < 0 or not errors:
        ended = f"signal {-code}" if code < 0 else "no reason given"
        raise DeviceError(f"{program} failed.", got=f"exit code {code}, {ended}")
    raise UnsupportedError(
        f"{program} refuses what it was asked for.",
        got="".join(c for c in errors[0].strip() if c.isprintable())[:_LONGEST],
        todo=f"try it yourself: {PROGRAM} {' '.join(arguments)}",
    )


def _tail(log: Path) -> str:
    with log.open("rb") as f:
        f.seek(max(0, log.stat().st_size - _LOG_TAIL_BYTES), os.SEEK_SET)
        return f.read().decode(errors="replace")
