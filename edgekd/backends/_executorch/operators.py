"""What each ONNX operator is in torch, for `edgekd.backends._executorch.torch_module`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from torch import Tensor

from edgekd.backends._executorch.values import INT8, Codes, Moved, Q
from edgekd.backends._onnx.weights import Weights
from edgekd.core.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

#: an unsigned code and its zero point, both this much lower, are the same value in int8
_UNSIGNED = 128


class Call:
    """One node with the values it reads.

    Args:
        node: Of the file.
        path: Of the file, for errors.
        runtime: Its name, for errors.
        values: Every tensor made so far, by name.
        buffer: Keeps a constant of this node under a number of the node's own.
        on_grid: Whether a QuantizeLinear follows, perhaps behind an activation.
    """

    def __init__(
        self,
        node: onnx.NodeProto,
        path: Path,
        runtime: str,
        values: dict[str, Any],
        buffer: Callable[[int, NDArray[Any]], Tensor],
        *,
        on_grid: bool,
    ) -> None:
        self.node, self._path, self._runtime = node, path, runtime
        self.on_grid = on_grid
        self._values, self._buffer = values, buffer
        found = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        self.attributes: dict[str, Any] = {
            name: v.decode() if isinstance(v, bytes) else v for name, v in found.items()
        }

    def has(self, index: int) -> bool:
        """Whether an optional input is given."""
        return index < len(self.node.input) and bool(self.node.input[index])

    def value(self, index: int) -> Any:
        """Codes, Weights, Moved, a tensor, or a constant as an array."""
        return self._values[self.node.input[index]]

    def real(self, index: int) -> Tensor:
        """An input in float."""
        value = self.value(index)
        if isinstance(value, Codes | Moved):
            return value.real()
        if isinstance(value, Weights):
            value = value.real()
        return self._buffer(index, value) if isinstance(value, np.ndarray) else value

    def constant(self, index: int, attribute: str = "") -> NDArray[Any] | None:
        """A constant input, or the attribute that older opsets have instead; None where absent."""
        if attribute in self.attributes:
            return np.asarray(self.attributes[attribute])
        if not self.has(index):
            return None
        value = self.value(index)
        if not isinstance(value, np.ndarray):
            raise self.refused(f"a constant as input {index}", "one that is computed")
        return value

    def weight(self, index: int, *, transpose: bool = False, as_codes: bool) -> Tensor:
        """Constant weights; codes stay codes behind a decoder where a kernel will take them."""
        value = self.value(index)
        if not isinstance(value, Weights) or value.codes.dtype != np.int8:
            real = self.real(index)
            return real.T if transpose else real
        value = value.transposed() if transpose else value
        if not as_codes:
            return self._buffer(index, value.real())
        codes = self._buffer(index, value.codes)
        if value.scale.size == 1:
            out: Tensor = Q.dequantize_per_tensor.default(
                codes, float(value.scale.reshape(())), 0, *INT8
            )
            return out
        scale = self._buffer(index + len(self.node.input), value.scale)
        zeros = np.zeros(value.scale.shape, np.int64)
        zero_point = self._buffer(index + 2 * len(self.node.input), zeros)
        out = Q.dequantize_per_channel.default(codes, scale, zero_point, value.axis, *INT8)
        return out

    def require(self, **attributes: Any) -> None:
        """Raise unless every attribute is absent or has this value."""
        for name, wanted in attributes.items():
            if self.attributes.get(name, wanted) != wanted:
                raise self.refused(f"{name} {wanted}", f"{name} {self.attributes[name]}")

    def refused(self, expected: str, got: str) -> UnsupportedError:
        """The error for a node that is not one of those known."""
        name = self.node.name or self.node.output[0]
        return UnsupportedError(
            f"edgekd cannot bring the {self.node.op_type} {name!r} of {self._path} "
            f"to {self._runtime}.",
            expected=expected,
            got=got,
            todo="try another target",
        )


def _quantize(call: Call) -> Codes:
    call.require(axis=1, output_dtype=0, saturate=1, block_size=0)
    zero = call.constant(2)
    scale, zero_point, _ = _grid(call, np.zeros((), np.uint8) if zero is None else zero)
    value = call.value(0)
    if isinstance(value, Moved):
        real = value.move(_codes(value.source, scale, zero_point).real())
    else:
        real = call.real(0)
    return _codes(real, scale, zero_point)


def _codes(real: Tensor, scale: float, zero_point: int) -> Codes:
    codes = Q.quantize_per_tensor.default(real, scale, zero_point, *INT8)
    return Codes(codes, scale, zero_point)


def _grid(call: Call, zero: NDArray[Any]) -> tuple[float, int, int]:
    """Scale, zero point in int8, and how much lower that is than the file's."""
    scale = call.constant(1)
    if scale is None or scale.size != 1:
        raise call.refused("one scale for an activation", "several, or one that is computed")
    if zero.dtype not in (np.int8, np.uint8):
        raise call.refused("int8 or uint8 codes", f"{zero.dtype} codes")
    shift = _UNSIGNED if zero.dtype == np.uint8 else 0
    return float(scale.reshape(())), int(zero.reshape(())) - shift, shift


def _dequantize(call: Call) -> Codes | Weights:
    call.require(block_size=0)
    value, zero = call.value(0), call.constant(2)
    if isinstance(value, Codes):
        scale, zero_point, _ = _grid(call, np.zeros((), np.uint8) if zero is None else zero)
        return Codes(value.codes, scale, zero_point)
    if not isinstance(value, np.ndarray):
        raise call.refused("codes from a QuantizeLinear, or constant ones", "a computed tensor")
    if value.dtype not in (np.int8, np.uint8, np.int32):
        raise call.refused("int8 or uint8 weights, or an int32 bias", f"{value.dtype} codes")
    if value.dtype == np.uint8:
        zeros = np.zeros((), np.uint8) if zero is None else zero
        value, zero = (value ^ _UNSIGNED).view(np.int8), zeros.astype(np.int16) - _UNSIGNED
    if zero is not None and zero.any():
        raise call.refused("weights around a zero point of 0", f"{zero[zero != 0].flat[0]}")
    scale_ = np.asarray(call.constant(1), np.float32)
    axis = int(call.attributes.get("axis", 1))
    return Weights(value, scale_, axis % max(value.ndim, 1))


def _conv(call: Call) -> Tensor:
    weight = call.weight(1, as_codes=isinstance(call.value(0), Codes) and call.on_grid)
    dims = weight.ndim - 2
    if dims not in (1, 2):
        raise call.refused("one or two dimensions", f"{dims}")
    begin, end = _pads(call, dims)
    if begin != end:
        raise call.refused("the same padding on both sides", f"{begin} and {end}")
    convolve: Any = F.conv1d if dims == 1 else F.conv2d
    out: Tensor = convolve(
        call.real(0),
        weight,
        call.real(2) if call.has(2) else None,
        stride=call.attributes.get("strides", [1] * dims),
        padding=begin,
        dilation=call.attributes.get("dilations", [1] * dims),
        groups=call.attributes.get("group", 1),
    )
    return out


def _pads(call: Call, dims: int) -> tuple[list[int], list[int]]:
    if call.attributes.get("auto_pad", "NOTSET") == "VALID":
        return [0] * dims, [0] * dims
    call.require(auto_pad="NOTSET")
    pads = list(call.attributes.get("pads", [0] * 2 * dims))
    return pads[:dims], pads[dims:]


def _gemm(call: Call) -> Tensor:
    call.require(alpha=1.0, beta=1.0, transA=0)
    return _linear(call, transpose=not call.attributes.get("transB", 0))


def _matmul(call: Call) -> Tensor:
    weights = call.value(1)
    codes = weights.codes if isinstance(weights, Weights) else weights
    if isinstance(codes, np.ndarray) and codes.ndim == 2:
        return _linear(call, transpose=True)
    return torch.matmul(call.real(0), call.real(1))


def _linear(call: Call, *, transpose: bool) -> Tensor:
    weights, value = call.value(1), call.real(0)
    as_codes = isinstance(call.value(0), Codes)
    if as_codes and not call.on_grid:
        # the integer kernel with a float result finds the range of its input by itself
        as_codes = isinstance(weights, Weights) and weights.scale.size > 1
        value = _ranged(value) if as_codes else value
    weight = call.weight(1, transpose=transpose, as_codes=as_codes)
    return F.linear(value, weight, call.real(2) if call.has(2) else None)


def _ranged(value: Tensor) -> Tensor:
    """A tensor on the int8 grid of its own smallest and largest value."""
    epsilon = torch.finfo(torch.float32).eps
    grid = Q.choose_qparams.tensor(value, *INT8[:2], epsilon, torch.int8)
    codes = Q.quantize_per_tensor.tensor(value, *grid, *INT8)
    out: Tensor = Q.dequantize_per_tensor.tensor(codes, *grid, *INT8)
    return out


def _batch_norm(call: Call) -> Tensor:
    call.require(training_mode=0)
    scale, bias, mean, variance = (call.real(index) for index in range(1, 5))
    epsilon = call.attributes.get("epsilon", 1e-5)
    return F.batch_norm(call.real(0), mean, variance, scale, bias, eps=epsilon)


def _clip(call: Call) -> Tensor:
    low, high = call.constant(1, "min"), call.constant(2, "max")
    if low is not None and high is not None:
        # XNNPACK takes a ReLU6 into the kernel in front only in this form
        return F.hardtanh(call.real(0), float(low.reshape(())), float(high.reshape(())))
    bounds = [None if bound is None else float(bound.reshape(())) for bound in (low, high)]
    return torch.clamp(call.real(0), *bounds)


def _max_pool(call: Call) -> Tensor:
    call.require(storage_order=0)
    begin = _pool_pads(call)
    kernel = call.attributes["kernel_shape"]
    return F.max_pool2d(
        call.real(0),
        kernel,
        call.attributes.get("strides", [1, 1]),
        begin,
        call.attributes.get("dilations", [1, 1]),
        ceil_mode=bool(call.attributes.get("ceil_mode", 0)),
    )


def _average_pool(call: Call) -> Tensor:
    call.require(dilations=[1, 1])
    begin = _pool_pads(call)
    return F.avg_pool2d(
        call.real(0),
        call.attributes["kernel_shape"],
        call.attributes.get("strides", [1, 1]),
        begin,
        ceil_mode=bool(call.attributes.get("ceil_mode", 0)),
        count_include_pad=bool(call.attributes.get("count_include_pad", 0)),
    )


def _pool_pads(call: Call) -> list[int]:
    dims = len(call.attributes["kernel_shape"])
    if dims != 2:
        raise call.refused("two dimensions", f"{dims}")
    begin, end = _pads(call, dims)
    if begin != end:
        raise call.refused("the same padding on both sides", f"{begin} and {end}")
    return begin


def _global_pool(call: Call) -> Tensor:
    value = call.real(0)
    return value.mean(list(range(2, value.ndim)), keepdim=True)


def _mean(call: Call) -> Tensor:
    axes = call.constant(1, "axes")
    if axes is None:
        raise call.refused("axes", "none")
    keep = bool(call.attributes.get("keepdims", 1))
    return call.real(0).mean([int(a) for a in axes.reshape(-1)], keepdim=keep)


def _reshape(call: Call) -> Moved:
    wanted = call.constant(1, "shape")
    if wanted is None:
        raise call.refused("a shape", "none")
    old = call.real(0).shape
    keeps = not call.attributes.get("allowzero", 0)  # a 0 means the old size
    shape = [old[i] if keeps and n == 0 else int(n) for i, n in enumerate(wanted.tolist())]
    return Moved(call.real(0), lambda value: value.reshape(shape))


def _flatten(call: Call) -> Moved:
    call.require(axis=1)
    return Moved(call.real(0), lambda value: value.flatten(1))


def _transpose(call: Call) -> Moved:
    order = call.attributes.get("perm")
    if order is None:
        raise call.refused("perm", "none")
    return Moved(call.real(0), lambda value: value.permute(order))


def _concat(call: Call) -> Tensor:
    parts = [call.real(index) for index in range(len(call.node.input))]
    return torch.cat(parts, dim=call.attributes["axis"])


def _softmax(call: Call) -> Tensor:
    return torch.softmax(call.real(0), dim=call.attributes.get("axis", -1))


OPERATORS: dict[str, Callable[[Call], Any]] = {
    "Add": lambda call: call.real(0) + call.real(1),
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Clip": _clip,
    "Concat": _concat,
    "Conv": _conv,
    "DequantizeLinear": _dequantize,
    "Flatten": _flatten,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_pool,
    "Identity": lambda call: call.value(0),
    "MatMul": _matmul,
    "MaxPool": _max_pool,
    "Mul": lambda call: call.real(0) * call.real(1),
    "QuantizeLinear": _quantize,
    "ReduceMean": _mean,
    "Relu": lambda call: torch.relu(call.real(0)),
    "Reshape": _reshape,
    "Sigmoid": lambda call: torch.sigmoid(call.real(0)),
    "Softmax": _softmax,
    "Transpose": _transpose,
}
