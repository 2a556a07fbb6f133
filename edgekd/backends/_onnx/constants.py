"""What an ONNX file computes from constants alone, such as the unpacking of its weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from edgekd.backends._onnx.weights import Weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Constants = dict[str, NDArray[Any] | Weights]

_INT8_MAX = 127


def constants(model: onnx.ModelProto) -> Constants:
    """Every constant tensor by name, after folding.

    What a DequantizeLinear makes of constant codes stays codes where int8 codes around 0, or
    int32 ones, with one scale per index of an axis can say the same.
    """
    found: Constants = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    for node in model.graph.node:
        if not all(name in found for name in node.input if name):
            continue
        weights = _codes(node, found) if node.op_type == "DequantizeLinear" else None
        made = _folded(model, node, found) if weights is None else [weights]
        found.update(zip(node.output, made, strict=True))
    return found


def _codes(node: onnx.NodeProto, found: Constants) -> Weights | None:
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    codes, scale = found[node.input[0]], found[node.input[1]]
    if attributes.get("block_size", 0) or isinstance(codes, Weights) or isinstance(scale, Weights):
        return None
    zero = found[node.input[2]] if len(node.input) > 2 and node.input[2] else np.zeros(())
    axis = attributes.get("axis", 1) % max(codes.ndim, 1)
    around = [1] * codes.ndim
    if scale.size > 1:
        around[axis] = -1
    shift = np.broadcast_to(real(zero), scale.shape).astype(np.int64).reshape(around)
    centred = codes.astype(np.int64) - shift
    if codes.dtype == np.int32:
        return Weights(centred.astype(np.int32), scale.astype(np.float32), axis)
    # a code of -128 would overflow where two products are added in 16 bits, as on ARM
    if np.abs(centred).max(initial=0) > _INT8_MAX:
        return None
    return Weights(centred.astype(np.int8), scale.astype(np.float32), axis)


def _folded(model: onnx.ModelProto, node: onnx.NodeProto, found: Constants) -> list[NDArray[Any]]:
    feeds = {name: real(found[name]) for name in node.input if name}
    infos = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
        )
        for name, value in feeds.items()
    ]
    outs = [
        helper.make_tensor_value_info(name, onnx.TensorProto.UNDEFINED, None)
        for name in node.output
    ]
    single = helper.make_model(
        helper.make_graph([node], "one", infos, outs),
        opset_imports=model.opset_import,
        ir_version=model.ir_version,
    )
    return [np.asarray(value) for value in ReferenceEvaluator(single).run(None, feeds)]


def real(value: NDArray[Any] | Weights) -> NDArray[Any]:
    """A constant as it is, decoded where it is codes."""
    return value.real() if isinstance(value, Weights) else value
