"""Reads a float ONNX model that somebody else wrote, and brings it to an opset with Q/DQ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgekd.backends._onnx.file import check
from edgekd.backends._onnx.qdq import INT8_MATMULS, LOW_BIT_MATMULS, QDQ
from edgekd.core.errors import DataError, UnsupportedError
from edgekd.quantize.onnx_graph.graph import nodes_within

if TYPE_CHECKING:
    from pathlib import Path

#: the first with a QuantizeLinear that has a scale per channel
OPSET = 13
#: the first that every opset from 13 on is allowed in, and the last that all runtimes here read
_IR_VERSIONS = (8, 10)
_MAX_BYTES = 2**31 - 1
_DOMAINS = ("", "ai.onnx")
_INTEGER_OPS = QDQ | INT8_MATMULS | LOW_BIT_MATMULS | {"DynamicQuantizeLinear"}
#: before opset 11 there was one way of resizing; later ones have others as their default
_OLD_RESIZE = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
_RESIZE_MODES_SINCE = 11


def read_float(path: Path) -> tuple[Any, int]:
    """A float model of at least opset 13 with its weights inside, and the opset it was in.

    Args:
        path: Of the file; other files are read only where they lie beside it.

    Returns:
        An ``onnx.ModelProto``, and the version of the standard operators in the file.

    Raises:
        DataError: The file is damaged or points outside its folder.
        UnsupportedError: It is quantized already, above 2 GiB, or cannot be brought to opset 13.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    check(path)
    try:
        model = onnx.load(path)
    except (DecodeError, OSError, ValueError) as e:
        raise DataError(
            f"{path} is damaged.",
            expected="a complete ONNX file",
            got=_first_line(e),
            todo="export or download it again",
        ) from e
    _refuse_integers(model, path)
    if model.ByteSize() > _MAX_BYTES:
        raise UnsupportedError(
            f"{path} is too large to be written as one file.",
            expected="at most 2 GiB with its weights",
            got=f"{model.ByteSize()} bytes",
        )
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    was = opset(model)
    return _converted(model, was, path), was


def opset(model: Any) -> int:
    """Version of the standard operators that the model is written in."""
    return max((o.version for o in model.opset_import if o.domain in _DOMAINS), default=1)


def _refuse_integers(model: Any, path: Path) -> None:
    found = sorted({n.op_type for n in nodes_within(model.graph)} & _INTEGER_OPS)
    if found:
        raise UnsupportedError(
            f"{path} is quantized already.",
            expected="a float model",
            got=f"nodes of {', '.join(found)}",
            todo="give the float model that it was made from",
        )


def _converted(model: Any, was: int, path: Path) -> Any:
    """The model in an opset that has Q/DQ per channel; the caller checks that it still agrees."""
    from onnx import helper, version_converter

    if was < OPSET:
        try:
            model = version_converter.convert_version(model, OPSET)
        except Exception as e:  # the converter raises RuntimeError and several of its own
            raise UnsupportedError(
                f"{path} cannot be brought from opset {was} to {OPSET}, the first with int8 "
                "weights per channel.",
                got=_first_line(e),
                todo=f"export the model again with opset {OPSET} or newer",
            ) from e
        for node in model.graph.node:
            if node.op_type == "Resize" and was < _RESIZE_MODES_SINCE:
                kept = [a for a in node.attribute if a.name not in _OLD_RESIZE]
                del node.attribute[:]
                node.attribute.extend(kept)
                node.attribute.extend(helper.make_attribute(*item) for item in _OLD_RESIZE.items())
    model.ir_version = min(max(model.ir_version, _IR_VERSIONS[0]), _IR_VERSIONS[1])
    return model


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
