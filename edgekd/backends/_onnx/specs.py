"""Inputs and outputs of an ONNX graph, for runtimes that do not tell them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx

from edgekd.backends._feeds import shape_text
from edgekd.core.errors import UnsupportedError
from edgekd.core.types import TensorSpec

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def input_specs(model: onnx.ModelProto, path: Path) -> tuple[TensorSpec, ...]:
    """What must be fed, in the file's order.

    Args:
        model: Weights need not be loaded.
        path: For errors.

    Raises:
        UnsupportedError: An input is no plain tensor.
    """
    fixed = {i.name for i in model.graph.initializer}
    return tuple(_spec(i, path) for i in model.graph.input if i.name not in fixed)


def output_specs(model: onnx.ModelProto, path: Path) -> tuple[TensorSpec, ...]:
    """What comes out, in the file's order; see `input_specs`."""
    return tuple(_spec(o, path) for o in model.graph.output)


def check_fixed(inputs: Sequence[TensorSpec], path: Path) -> None:
    """Raise unless every input has fixed sizes.

    Raises:
        UnsupportedError: One leaves an axis open, for which what is compiled needs a range.
    """
    for spec in inputs:
        if None in spec.shape:
            raise UnsupportedError(
                f"The input {spec.name!r} of {path} leaves an axis open.",
                expected="fixed sizes, which the file is compiled for",
                got=shape_text(spec.shape),
                todo="export the model for one batch size",
            )


def _spec(value: Any, path: Path) -> TensorSpec:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        raise UnsupportedError(
            f"{path} takes or gives {value.name!r}, which is no plain tensor.",
            expected="a tensor",
            got=kind or "no type",
        )
    tensor = value.type.tensor_type
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    # some writers mark an axis that is left open by -1
    shape = tuple(
        d.dim_value if d.HasField("dim_value") and d.dim_value >= 0 else None
        for d in tensor.shape.dim
    )
    return TensorSpec(value.name, dtype, shape)
