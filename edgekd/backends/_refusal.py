"""A runtime's complaint in one line, and whose fault it is."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from edgekd.core.errors import DataError, EdgekdError, UnsupportedError

if TYPE_CHECKING:
    from pathlib import Path

_LONGEST = 300
_ORT_PREFIX = re.compile(r"^\[ONNXRuntimeError\] : \d+ : ([A-Z_]+) : ")
#: lines of OpenVINO that only say where in its sources the exception was thrown
_NOISE = (
    "Exception from ",
    "Check ",
    "FrontEnd API failed",
    "While validating",
    "Loading input model",
)
_SUMMARY = re.compile(
    r"^-- ((?:Conversion is failed|No conversion rule found) for.*)$", re.MULTILINE
)


def refusal(model: Path | bytes, path: Path, runtime: str, error: BaseException) -> EdgekdError:
    """The error to raise when a runtime does not load a file that looked whole.

    Args:
        model: The file, or its content where it is not written yet.
        path: Its name, for the text.
        runtime: The runtime's name, for the text.
        error: What the runtime raised.

    Returns:
        DataError where not even the `onnx` package can read the file, else UnsupportedError.
    """
    reason = first_line(error)
    if not _readable(model):
        return DataError(
            f"{path} is damaged.",
            expected="a complete ONNX file",
            got=reason,
            todo="export or download it again",
        )
    return UnsupportedError(
        f"{runtime} cannot load {path}.",
        got=reason,
        todo="try another target, or export the model with standard operators only",
    )


def first_line(error: BaseException) -> str:
    """The first line of a runtime's error that says what is wrong."""
    text = str(error).strip()
    summary = "; ".join(_SUMMARY.findall(text))
    lines = [summary] if summary else text.splitlines()
    telling = next((x for x in lines if not x.startswith(_NOISE)), lines[0] if lines else "")
    line = _ORT_PREFIX.sub(r"\1: ", telling).strip() or type(error).__name__
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"


def _readable(model: Path | bytes) -> bool:
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        if isinstance(model, bytes):
            onnx.load_from_string(model)
        else:
            onnx.load(model, load_external_data=False)
    except (DecodeError, OSError):
        return False
    return True
