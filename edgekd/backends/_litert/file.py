"""Reads a .tflite file before the runtime does."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ai_edge_litert import schema_py_generated as schema

from edgekd.backends._litert.writer import IDENTIFIER
from edgekd.core.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

#: where a file says what it is
_PLACE = slice(4, 8)


def parsed(content: bytes, path: Path) -> Any:
    """The file as objects of the generated schema (``ModelT``).

    Args:
        content: Of the file.
        path: Names it in errors.

    Raises:
        DataError: It is empty, cut off or something else.
    """
    if content[_PLACE] != IDENTIFIER:
        raise _damaged(path, "another kind of file" if content else "0 bytes")
    try:
        return schema.ModelT.InitFromPackedBuf(content)
    except Exception as e:  # offsets that lead outside end in struct, index and unicode errors
        raise _damaged(path, f"{len(content)} bytes that do not hold all of it") from e


def note(model: Any, name: str, path: Path) -> dict[str, str]:
    """What edgekd wrote down under a name when it built the file; empty for other files.

    Raises:
        DataError: It cannot be read.
    """
    for entry in model.metadata or ():
        if entry.name == name.encode():
            try:
                found = json.loads(bytes(model.buffers[entry.buffer].data))
                return {str(key): str(value) for key, value in found.items()}
            except (AttributeError, IndexError, TypeError, ValueError) as e:
                raise _damaged(path, "notes that cannot be read") from e
    return {}


def _damaged(path: Path, got: str) -> DataError:
    return DataError(
        f"{path} is no whole LiteRT file.",
        expected="a .tflite file",
        got=got,
        todo="build it again: edgekd build",
    )
