"""What TensorRT's parser refuses or misreads in a quantized file, said before it is asked.

It runs symmetric int8 only, and takes other integers in three ways: uint8 codes with a zero point
of 0 are read as int8 with a warning, which halves their range; other zero points, and an int32
bias behind a DequantizeLinear, are refused with an assertion of its own sources; so are operators
that compute on codes (QLinearConv and its kin).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx

from edgekd.backends._onnx.qdq import INT8_MATMULS, QDQ
from edgekd.core.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgekd.core.target import Target

_CODES = frozenset({"INT8", "INT4", "FLOAT8E4M3FN", "FLOAT4E2M1"})
#: what the standard makes of a QuantizeLinear that names no type
_UNNAMED = "UINT8"


def check_codes(model: onnx.ModelProto, path: Path, target: Target, runtime: str) -> None:
    """Raise unless every quantized tensor of a model is one that TensorRT reads as it is meant.

    Args:
        model: With its weights.
        path: For errors.
        target: For what to do.
        runtime: Its name, for errors.

    Raises:
        UnsupportedError: A node is not; the text names it.
    """
    todo = _todo(target)
    constants: dict[str, onnx.TensorProto] = {}
    types: dict[str, str] = {}  # of codes, by tensor
    for node in _walk(model.graph, constants):
        name = node.name or node.output[0]
        if node.op_type in INT8_MATMULS or node.op_type.startswith("QLinear"):
            raise UnsupportedError(
                f"{runtime} has no {node.op_type}, which the node {name!r} of {path} is.",
                expected="QuantizeLinear and DequantizeLinear around operators in float",
                got=node.op_type,
                todo=todo,
            )
        if node.op_type not in QDQ:
            continue
        got = _wrong_codes(node, constants, types) or _wrong_zero_point(node, constants)
        if got:
            raise UnsupportedError(
                f"{runtime} would refuse or misread the {node.op_type} {name!r} of {path}.",
                expected="int8 codes around a zero point of 0, or int4 weights",
                got=got,
                todo=todo,
            )


def _wrong_codes(node: Any, constants: dict[str, onnx.TensorProto], types: dict[str, str]) -> str:
    """The type of its codes where it is a wrong one."""
    code = _type_of(node, constants, types)
    if node.op_type == "QuantizeLinear":
        types[node.output[0]] = code
    return "" if code in _CODES else f"{code.lower()} codes"


def _type_of(node: Any, constants: dict[str, onnx.TensorProto], types: dict[str, str]) -> str:
    for name in node.input[2:3] if node.op_type == "QuantizeLinear" else node.input[:1]:
        if name in constants:
            return _type_name(constants[name].data_type)
        if name in types:
            return types[name]
    given = [a.i for a in node.attribute if a.name == "output_dtype" and a.i]
    if node.op_type == "QuantizeLinear":
        return _type_name(given[0]) if given else _UNNAMED
    zero_point = constants.get(node.input[2]) if len(node.input) > 2 else None
    return _type_name(zero_point.data_type) if zero_point is not None else "unknown"


def _wrong_zero_point(node: Any, constants: dict[str, onnx.TensorProto]) -> str:
    if len(node.input) < 3 or not node.input[2]:
        return ""
    stored = constants.get(node.input[2])
    if stored is None:
        return f"a zero point that is computed, {node.input[2]!r}"
    values = onnx.numpy_helper.to_array(stored).astype("float32").reshape(-1)
    wrong = values[values != 0]
    return f"the zero point {wrong[0]:g}" if len(wrong) else ""


def _walk(graph: onnx.GraphProto, constants: dict[str, onnx.TensorProto]) -> Iterator[Any]:
    """Every node of a graph, branches and loops too; `constants` fills up on the way."""
    constants.update({i.name: i for i in graph.initializer})
    for node in graph.node:
        if node.op_type == "Constant":
            constants.update((node.output[0], a.t) for a in node.attribute if a.name == "value")
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _walk(inner, constants)


def _type_name(element_type: int) -> str:
    return str(onnx.TensorProto.DataType.Name(element_type))


def _todo(target: Target) -> str:
    if target.scheme is None:
        return "give the float model"
    return (
        f"export it for {target.name!r} itself, whose scheme has {target.scheme.activations} "
        f"activations and a {target.scheme.bias} bias"
    )
