"""What each ONNX operator is in LiteRT."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from ai_edge_litert.schema_py_generated import ActivationFunctionType

from edgekd.backends._litert.kernels import average_pool, convolution, max_pool, product
from edgekd.backends._litert.values import TO_LAST, Value

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgekd.backends._litert.call import Call
    from edgekd.backends._litert.writer import Tensor


def _quantize(call: Call) -> Value:
    call.require(axis=1, output_dtype=0, saturate=1, block_size=0)
    grid = call.source.grid(call.node)
    if grid is None:
        raise call.refused("one constant scale, and int8 or uint8 codes", "another grid")
    value: Value = call.value(0)
    return value.quantized(call.node.output[0], grid)


def _dequantize(call: Call) -> Value:
    value: Value = call.value(0)
    if value.grid is None or call.source.grid(call.node) != value.grid:
        raise call.refused("codes from a QuantizeLinear with the same grid", "others")
    return value


def _gemm(call: Call) -> Value:
    call.require(alpha=1.0, beta=1.0, transA=0)
    if len(call.value(0).shape) != 2:
        raise call.refused("an input of rank 2", f"rank {len(call.value(0).shape)}")
    return product(call, transposed=bool(call.attributes.get("transB", 0)))


def _arithmetic(op: str, options: str) -> Callable[[Call], Value]:
    def made(call: Call) -> Value:
        ahead = call.ahead()
        values = [None if call.is_constant(i) else call.value(i) for i in (0, 1)]
        shapes = [call.fixed(i).shape if v is None else v.shape for i, v in enumerate(values)]
        shape = np.broadcast_shapes(*shapes)
        ranks = {len(v.shape) for v in values if v is not None}
        codes = ahead.grid is not None and all(v is not None and v.grid for v in values)
        last = ranks == {4} == {len(shape)} and any(v.is_last for v in values if v)
        inputs = [
            _fixed(call, index, len(shape), last)
            if value is None
            else value.tensor(codes=codes, last=last)
            for index, value in enumerate(values)
        ]
        return call.made(
            op, inputs, shape, options, name=ahead.name,
            grid=ahead.grid if codes else None, last=last,
            settings={
                "fusedActivationFunction": getattr(ActivationFunctionType, ahead.activation)
            },
        )  # fmt: skip

    return made


def _fixed(call: Call, index: int, rank: int, last: bool) -> Tensor:
    """A constant operand in float, its axes in the order of the computed one."""
    value = call.fixed(index).astype(np.float32)
    if last:
        value = value.reshape([1] * (rank - value.ndim) + list(value.shape)).transpose(TO_LAST)
    return call.writer.constant(f"{call.name}/{index}", value)


def _batch_norm(call: Call) -> Value:
    """In float: a product and a sum with one number a channel."""
    call.require(training_mode=0)
    x = call.value(0)
    scale, bias, mean, variance = (call.fixed(index) for index in range(1, 5))
    factor = scale / np.sqrt(variance + call.attributes.get("epsilon", 1e-5))
    source = x.tensor(codes=False, last=x.images)
    if not x.images and len(x.shape) != 2:
        raise call.refused("a tensor of rank 2 or 4", f"rank {len(x.shape)}")
    scaled = call.writer.operator(
        "MUL",
        [source, call.writer.constant(f"{call.name}/factor", factor.astype(np.float32))],
        call.writer.tensor(f"{call.name}/scaled", source.shape),
        "MulOptions",
    )
    ahead = call.ahead()
    offset = call.writer.constant(f"{call.name}/offset", (bias - mean * factor).astype(np.float32))
    return call.made(
        "ADD", [scaled, offset], x.shape, "AddOptions", name=ahead.name, last=x.images,
        settings={"fusedActivationFunction": getattr(ActivationFunctionType, ahead.activation)},
    )  # fmt: skip


def _clip(call: Call) -> Value:
    """Relu or Clip that no kernel in front could take."""
    bounds = call.source.bounds(call.node)
    if bounds is None:
        raise call.refused("constant bounds", "computed ones")
    low, high = bounds
    if low == 0 and high in (None, 6.0):
        return _elementwise("RELU" if high is None else "RELU6")(call)
    source, last = call.value(0).natural(codes=False)
    for op, bound in (("MAXIMUM", low), ("MINIMUM", high)):
        if bound is not None:
            limit = call.writer.constant(f"{call.name}/{op}", np.array([bound], np.float32))
            out = call.writer.tensor(f"{call.name}/{op.lower()}", source.shape)
            source = call.writer.operator(op, [source, limit], out, "MaximumMinimumOptions")
    return Value(call.writer, call.node.output[0], call.value(0).shape, source, last=last)


def _elementwise(op: str, *, integers: bool = True) -> Callable[[Call], Value]:
    def made(call: Call) -> Value:
        x, ahead = call.value(0), call.ahead(fuse=False)
        codes = integers and x.grid is not None and ahead.grid is not None
        source, last = x.natural(codes=codes)
        grid = ahead.grid if codes else None
        return call.made(op, [source], x.shape, grid=grid, last=last)

    return made


def _global_pool(call: Call) -> Value:
    return _mean(call, list(range(2, len(call.value(0).shape))), keep=True)


def _reduce_mean(call: Call) -> Value:
    axes = call.constant(1, "axes")
    if axes is None:
        raise call.refused("axes", "none")
    rank = len(call.value(0).shape)
    chosen = [int(a) % rank for a in axes.reshape(-1)]
    return _mean(call, chosen, keep=bool(call.attributes.get("keepdims", 1)))


def _mean(call: Call, axes: list[int], *, keep: bool) -> Value:
    x, ahead = call.value(0), call.ahead(fuse=False)
    codes = x.grid is not None and ahead.grid is not None
    last = x.images and sorted(axes) == [2, 3]
    shape = [1 if i in axes else n for i, n in enumerate(x.shape) if keep or i not in axes]
    stored = np.array([1, 2] if last else axes, np.int32)
    return call.made(
        "MEAN",
        [x.tensor(codes=codes, last=last), call.writer.constant(f"{call.name}/axes", stored)],
        shape, "ReducerOptions", grid=ahead.grid if codes else None, last=last and keep,
        settings={"keepDims": keep},
    )  # fmt: skip


def _reshape(call: Call) -> Value:
    wanted = call.constant(1, "shape")
    if wanted is None:
        raise call.refused("a shape", "none")
    x = call.value(0)
    keeps = not call.attributes.get("allowzero", 0)  # a 0 means the old size
    shape = [x.shape[i] if keeps and n == 0 else int(n) for i, n in enumerate(wanted.tolist())]
    return x.moved(call.node.output[0], np.empty(x.shape, np.bool_).reshape(shape).shape)


def _flatten(call: Call) -> Value:
    call.require(axis=1)
    x = call.value(0)
    return x.moved(call.node.output[0], (x.shape[0], int(np.prod(x.shape[1:]))))


def _transpose(call: Call) -> Value:
    order = call.attributes.get("perm")
    if order is None:
        raise call.refused("perm", "none")
    x = call.value(0)
    axes = call.writer.constant(f"{call.name}/order", np.array(order, np.int32))
    source = x.tensor(codes=x.grid is not None)
    return call.made(
        "TRANSPOSE", [source, axes], [x.shape[i] for i in order], "TransposeOptions", grid=x.grid
    )


def _concat(call: Call) -> Value:
    """In int8 every part is put on the grid of the whole, which changes no value of that."""
    values = [call.value(i) for i in range(len(call.node.input))]
    grid = call.ahead(fuse=False).grid if all(v.grid for v in values) else None
    if grid is not None:
        values = [v.quantized(f"{call.name}/{i}", grid) for i, v in enumerate(values)]
    codes = grid is not None
    axis = call.attributes["axis"] % len(values[0].shape)
    last = values[0].images and any(v.is_last for v in values)
    shape = list(values[0].shape)
    shape[axis] = sum(v.shape[axis] for v in values)
    return call.made(
        "CONCATENATION",
        [v.tensor(codes=codes, last=last) for v in values],
        shape, "ConcatenationOptions", grid=grid, last=last,
        settings={"axis": TO_LAST.index(axis) if last else axis},
    )  # fmt: skip


def _softmax(call: Call) -> Value:
    x = call.value(0)
    axis = call.attributes.get("axis", -1) % len(x.shape)
    last = x.images and axis == 1
    if not last and axis != len(x.shape) - 1:
        raise call.refused("the last axis, or the channels of an image", f"axis {axis}")
    source = x.tensor(codes=False, last=last)
    return call.made(
        "SOFTMAX", [source], x.shape, "SoftmaxOptions", last=last, settings={"beta": 1.0}
    )


OPERATORS: dict[str, Callable[[Call], Value]] = {
    "Add": _arithmetic("ADD", "AddOptions"),
    "AveragePool": average_pool,
    "BatchNormalization": _batch_norm,
    "Clip": _clip,
    "Concat": _concat,
    "Conv": convolution,
    "DequantizeLinear": _dequantize,
    "Flatten": _flatten,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_pool,
    "Identity": lambda call: call.value(0),
    "MatMul": lambda call: product(call, transposed=False),
    "MaxPool": max_pool,
    "Mul": _arithmetic("MUL", "MulOptions"),
    "QuantizeLinear": _quantize,
    "ReduceMean": _reduce_mean,
    "Relu": _clip,
    "Reshape": _reshape,
    "Sigmoid": _elementwise("LOGISTIC", integers=False),
    "Softmax": _softmax,
    "Sub": _arithmetic("SUB", "SubOptions"),
    "Tanh": _elementwise("TANH", integers=False),
    "Transpose": _transpose,
}
