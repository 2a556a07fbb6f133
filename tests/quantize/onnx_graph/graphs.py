"""Graphs written node by node, as somebody else would."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgekd.quantize.onnx_graph.convert import FloatGraph, float_graph


def node(
    op: str, inputs: str, outputs: str, name: str = "", **attributes: object
) -> onnx.NodeProto:
    """`inputs` and `outputs` are names with spaces between."""
    return helper.make_node(op, inputs.split(), outputs.split(), name=name, **attributes)


def model(
    nodes: Sequence[onnx.NodeProto],
    weights: Mapping[str, object],
    *,
    x: Sequence[int | str] = (1, 2, 4, 4),
    y: Sequence[str] = ("y",),
    opset: int = 20,
) -> bytes:
    """A model with the input "x"; weights become float32 where they are lists or floats."""
    constants = [
        numpy_helper.from_array(
            value if isinstance(value, np.ndarray) else np.asarray(value, np.float32), name
        )
        for name, value in weights.items()
    ]
    graph = helper.make_graph(
        list(nodes),
        "somebody",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(x))],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in y],
        constants,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return made.SerializeToString()


def read(folder: Path, data: bytes) -> FloatGraph:
    path = folder / "somebody.onnx"
    path.write_bytes(data)
    return float_graph(path)


def ops(proto: onnx.ModelProto) -> list[str]:
    return [n.op_type for n in proto.graph.node]
