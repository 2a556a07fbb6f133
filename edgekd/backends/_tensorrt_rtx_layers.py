"""The kernels that TensorRT-RTX compiled, read from what its builder says; it needs no GPU."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from edgekd.backends._qdq import MATMULS, FileGraph
from edgekd.core.errors import UnsupportedError
from edgekd.core.types import LayerRecord

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import onnx

    from edgekd.core.types import Precision

_LAYER = re.compile(
    r"^Name: (?P<name>.+?), LayerType: (?P<op>\w+), Inputs: \[(?P<inputs>.*?)\], "
    r"(?:Constants: \[(?P<constants>.*?)\], )?Outputs: .*?(?:Metadata: (?P<metadata>.*))?$",
    re.MULTILINE,
)
_ANY_LAYER = re.compile(r"^Name: ", re.MULTILINE)
_DATATYPE = re.compile(r"Datatype: (\w+)")
_ORIGIN = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
_UNTOLD = "the builder names no kernel for it"
#: kernels made of small operators; anything else is one from the library of matrix products
_GENERATED = "kgen"
_PRECISIONS: dict[str, Precision] = {
    "Int8": "int8",
    "Int4": "int4",
    "Float": "float32",
    "Half": "float16",
    "BFloat16": "bfloat16",
}


def layers(said: str, model: onnx.ModelProto, path: Path) -> Sequence[LayerRecord]:
    """Every kernel in order, without times.

    Each convolution or matrix product of the file is one "matmul": its kernel from the library,
    or where there is none the first generated kernel that holds a part of it.

    Args:
        said: The builder's list, one layer a line.
        model: The file; every node has a name.
        path: For errors.

    Raises:
        UnsupportedError: The list is not in the form that edgekd knows.
    """
    found = list(_LAYER.finditer(said))
    if not found or len(found) != len(_ANY_LAYER.findall(said)):
        raise UnsupportedError(
            f"TensorRT-RTX does not tell the layers of {path} as edgekd knows it.",
            expected="lines of Name, LayerType, Inputs, Outputs, Metadata",
            got=said[:80] or "nothing",
        )
    source = FileGraph(model)
    held = [
        [n for n in _ORIGIN.findall(m["metadata"] or "") if source.is_matmul(n)] for m in found
    ]
    owner: dict[str, int] = {}
    for generated in (False, True):
        for index, (match, names) in enumerate(zip(found, held, strict=True)):
            if (match["op"] == _GENERATED) == generated:
                for name in names:
                    owner.setdefault(name, index)
    records: list[LayerRecord] = []
    for index, (match, names) in enumerate(zip(found, held, strict=True)):
        owned = [name for name in dict.fromkeys(names) if owner[name] == index]
        records += [_record(match, name, source) for name in owned or (None,)]
    untold = [n.name for n in model.graph.node if n.op_type in MATMULS and n.name not in owner]
    return [*records, *(LayerRecord(n, "?", "matmul", "other", reason=_UNTOLD) for n in untold)]


def _record(match: re.Match[str], origin: str | None, source: FileGraph) -> LayerRecord:
    inputs = _DATATYPE.findall(match["inputs"])
    takes = [*inputs[:1], *_DATATYPE.findall(match["constants"] or "")[:1]]
    precision = _PRECISIONS.get(inputs[0], "other") if inputs else "other"
    if origin is None:
        return LayerRecord(match["name"], match["op"], "other", precision)
    if precision == "int8" and takes != ["Int8", "Int8"]:
        precision = "other"
    node = source.origin(origin)
    reason = "" if precision == "int8" or node is None else source.why_float(node, strict=False)
    title = f"{match['name']} [{origin}]"
    return LayerRecord(title, match["op"], "matmul", precision, reason=reason)
