"""The kernels that TensorRT-RTX compiled, read from what its builder says; it needs no GPU."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from edgekd.backends._tensorrt.kernels import LIBRARY, Kernel
from edgekd.core.errors import UnsupportedError

if TYPE_CHECKING:
    from pathlib import Path

_ANY_LAYER = re.compile(r"^Name: ", re.MULTILINE)
_LAYER = re.compile(
    r"^Name: (?P<name>.+?), LayerType: (?P<op>\w+), Inputs: \[(?P<inputs>.*?)\], "
    r"(?:Constants: \[(?P<constants>.*?)\], )?Outputs: \[(?P<outputs>.*?)\], "
    r"TacticName: .*?(?:Metadata: (?P<metadata>.*))?$",
    re.MULTILINE,
)
_DATATYPE = re.compile(r"Datatype: (\w+)")


def kernels(said: str, path: Path) -> list[Kernel]:
    """Every kernel in order, without times.

    Args:
        said: The builder's list, one layer a line.
        path: Of the file, for errors.

    Raises:
        UnsupportedError: The list is not in the form that edgekd knows.
    """
    found = [_kernel(match) for match in _LAYER.finditer(said)]
    if not found or len(found) != len(_ANY_LAYER.findall(said)):
        raise UnsupportedError(
            f"TensorRT-RTX does not tell the layers of {path} as edgekd knows it.",
            expected="lines of Name, LayerType, Inputs, Outputs, Metadata",
            got=said[:80] or "nothing",
        )
    return found


def _kernel(match: re.Match[str]) -> Kernel:
    constants = _DATATYPE.findall(match["constants"] or "")
    return Kernel(
        name=match["name"],
        op=match["op"],
        takes=tuple(_DATATYPE.findall(match["inputs"])),
        makes=tuple(_DATATYPE.findall(match["outputs"])),
        # a matrix product's first constant is its weights; other kernels have others
        weights=constants[0] if constants and LIBRARY.search(match["op"]) else "",
        metadata=match["metadata"] or "",
    )
