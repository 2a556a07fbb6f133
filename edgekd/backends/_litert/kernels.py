"""Convolutions, matrix products and pools of an ONNX file as LiteRT has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from ai_edge_litert.schema_py_generated import ActivationFunctionType, Padding

from edgekd.backends._onnx.constants import real
from edgekd.backends._onnx.weights import Weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from edgekd.backends._litert.call import Call
    from edgekd.backends._litert.values import Value
    from edgekd.backends._litert.writer import Tensor

_INT32 = np.iinfo(np.int32)
_INT4 = range(-8, 8)
#: how far the scale of a bias may be from input scale x weight scale and still be the same
_SAME = 1e-6
_LOWEST = float(np.finfo(np.float32).min)


def convolution(call: Call) -> Value:
    """Conv with constant weights; depthwise where each group reads one channel."""
    x, weights, ahead = call.value(0), call.weights(1), call.ahead()
    if not x.images:
        raise call.refused("two spatial dimensions", f"{len(x.shape) - 2}")
    bits = _int8(weights, 0) if x.grid is not None and ahead.grid is not None else None
    kernel = real(weights) if bits is None else bits.codes
    outputs, inner, *window = kernel.shape
    groups = call.attributes.get("group", 1)
    depthwise = inner == 1 and groups == x.shape[1] and groups > 1
    source = x.tensor(codes=bits is not None, last=True)
    steps = _Window(call, window, x.shape[2:])
    source, padding = steps.padded(source)
    settings: dict[str, Any] = {
        "padding": padding,
        **steps.settings(),
        "dilationHFactor": steps.dilations[0],
        "dilationWFactor": steps.dilations[1],
        "fusedActivationFunction": getattr(ActivationFunctionType, ahead.activation),
    }
    if depthwise:
        settings["depthMultiplier"] = outputs // groups
    order, axis = ((1, 2, 3, 0), 3) if depthwise else ((0, 2, 3, 1), 0)
    scale = None if bits is None else bits.scale
    stored = call.writer.constant(f"{call.name}/weight", kernel.transpose(order), scale, axis)
    op = "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D"
    return call.made(
        op,
        [source, stored, _bias(call, outputs, None if bits is None else _bias_scale(x, bits))],
        (x.shape[0], outputs, *steps.sizes),
        "DepthwiseConv2DOptions" if depthwise else "Conv2DOptions",
        name=ahead.name,
        grid=None if bits is None else ahead.grid,
        last=True,
        settings=settings,
    )


def product(call: Call, *, transposed: bool) -> Value:
    """Gemm or MatMul with constant weights, stored (O, I) where `transposed`, else (I, O).

    Codes of 4 bits are stored in 4, which XNNPACK multiplies as they are. Codes whose product has
    no grid go into the kernel that takes floats, finds the range of its
    input by itself and multiplies in int8.
    """
    x, weights, ahead = call.value(0), call.weights(1), call.ahead()
    if _rank(weights) != 2:
        raise call.refused("weights of rank 2", f"rank {_rank(weights)}")
    bits = None
    if x.grid is not None and isinstance(weights, Weights):
        bits = _int8(weights if transposed else weights.transposed(), 0)
    whole = bits is not None and ahead.grid is not None
    kernel = bits.codes if bits is not None else real(weights)
    kernel = kernel if transposed or bits is not None else kernel.T
    name = f"{call.name}/weight"
    # XNNPACK takes two codes of 4 bits at a time
    even = kernel.shape[1] % 2 == 0
    if bits is not None and even and set(np.unique(kernel).tolist()) <= set(_INT4):
        stored = call.writer.int4_constant(name, bits.codes, bits.scale)
    else:
        stored = call.writer.constant(name, kernel, None if bits is None else bits.scale)
    on_grid = _bias_scale(x, bits) if bits is not None and whole else None
    return call.made(
        "FULLY_CONNECTED",
        [x.tensor(codes=whole), stored, _bias(call, kernel.shape[0], on_grid)],
        (*x.shape[:-1], kernel.shape[0]),
        "FullyConnectedOptions",
        name=ahead.name,
        grid=ahead.grid if whole else None,
        settings={
            "fusedActivationFunction": getattr(ActivationFunctionType, ahead.activation),
            "keepNumDims": len(x.shape) != 2,
            "asymmetricQuantizeInputs": bits is not None and not whole,
        },
    )


def max_pool(call: Call) -> Value:
    """MaxPool; it chooses codes, and so keeps their grid."""
    call.require(storage_order=0, ceil_mode=0, dilations=[1, 1])
    x = call.value(0)
    return _pool(call, "MAX_POOL_2D", codes=x.grid is not None, fill=_LOWEST)


def average_pool(call: Call) -> Value:
    """AveragePool; in int8 only where its grids are the same, as LiteRT asks for."""
    call.require(ceil_mode=0, dilations=[1, 1])
    grid = call.value(0).grid
    codes = grid is not None and grid == call.ahead(fuse=False).grid
    fill = 0.0 if call.attributes.get("count_include_pad", 0) else None
    return _pool(call, "AVERAGE_POOL_2D", codes=codes, fill=fill)


def _pool(call: Call, op: str, *, codes: bool, fill: float | None) -> Value:
    x = call.value(0)
    window = call.attributes["kernel_shape"]
    if not x.images or len(window) != 2:
        raise call.refused("two spatial dimensions", f"{len(window)}")
    steps = _Window(call, window, x.shape[2:])
    source = x.tensor(codes=codes, last=True)
    source, padding = steps.padded(source, fill=fill, own=fill != 0)
    return call.made(
        op,
        [source],
        (*x.shape[:2], *steps.sizes),
        "Pool2DOptions",
        grid=x.grid if codes else None,
        last=True,
        settings={
            "padding": padding,
            **steps.settings(),
            "filterHeight": window[0],
            "filterWidth": window[1],
        },
    )


class _Window:
    """A kernel that slides over height and width.

    Args:
        call: The node.
        window: Height and width.
        image: Height and width of what it slides over.
    """

    def __init__(self, call: Call, window: Sequence[int], image: Sequence[int]) -> None:
        self._call = call
        self.strides = list(call.attributes.get("strides", [1, 1]))
        self.dilations = list(call.attributes.get("dilations", [1, 1]))
        reach = [(k - 1) * d + 1 for k, d in zip(window, self.dilations, strict=True)]
        same = []
        for size, stride, r in zip(image, self.strides, reach, strict=True):
            total = max((-(-size // stride) - 1) * stride + r - size, 0)
            same.append((total // 2, total - total // 2))
        auto = call.attributes.get("auto_pad", "NOTSET")
        if auto not in ("NOTSET", "VALID", "SAME_UPPER"):
            raise call.refused("auto_pad NOTSET, VALID or SAME_UPPER", auto)
        pads = list(call.attributes.get("pads", [0] * 4)) if auto == "NOTSET" else [0] * 4
        self.pads = same if auto == "SAME_UPPER" else list(zip(pads[:2], pads[2:], strict=True))
        self._same = self.pads == same
        self.sizes = [
            (size + sum(pad) - r) // stride + 1
            for size, pad, stride, r in zip(image, self.pads, self.strides, reach, strict=True)
        ]

    def settings(self) -> dict[str, int]:
        """Strides as the options of a kernel call them."""
        return {"strideH": self.strides[0], "strideW": self.strides[1]}

    def padded(
        self, source: Tensor, *, fill: float | None = 0.0, own: bool = True
    ) -> tuple[Tensor, int]:
        """What the kernel reads, and the padding that it does itself.

        Args:
            source: Channels last.
            fill: Value of the border; None where it may not be a value like any other.
            own: Whether the kernel's own padding means the same.
        """
        if not any(map(any, self.pads)):
            return source, Padding.VALID
        if own and self._same:
            return source, Padding.SAME
        if fill is None:
            raise self._call.refused("the pads of a SAME window", f"{self.pads}")
        return self._bordered(source, fill), Padding.VALID

    def _bordered(self, source: Tensor, fill: float) -> Tensor:
        writer, name = self._call.writer, f"{self._call.name}/padded"
        around = [(0, 0), *self.pads, (0, 0)]
        shape = [n + sum(pad) for n, pad in zip(source.shape, around, strict=True)]
        out = writer.tensor(name, shape, source.dtype, source.grid)
        pads = writer.constant(f"{name}/pads", np.array(around, np.int32))
        if fill == 0:
            return writer.operator("PAD", [source, pads], out, "PadOptions")
        lowest = np.array([-128 if source.grid else fill], source.dtype)
        value = writer.constant(f"{name}/fill", lowest, grid=source.grid)
        return writer.operator("PADV2", [source, pads, value], out, "PadV2Options")


def _rank(weights: NDArray[Any] | Weights) -> int:
    return weights.codes.ndim if isinstance(weights, Weights) else weights.ndim


def _int8(weights: NDArray[Any] | Weights, axis: int) -> Weights | None:
    """Weights that an integer kernel takes; None where they must be decoded."""
    if not isinstance(weights, Weights) or weights.codes.dtype != np.int8:
        return None
    return weights if weights.scale.size == 1 or weights.axis == axis else None


def _bias_scale(x: Value, weights: Weights) -> NDArray[np.float32]:
    assert x.grid is not None
    return np.asarray(np.float32(x.grid.scale) * weights.scale.reshape(-1), np.float32)


def _bias(call: Call, outputs: int, scale: NDArray[np.float32] | None) -> Tensor:
    """(O,) in float, or in int32 at `scale`, where LiteRT always wants it."""
    bias = call.weights(2) if call.has(2) else np.zeros(outputs, np.float32)
    value = np.broadcast_to(real(bias).reshape(-1), (outputs,)).astype(np.float32)
    name = f"{call.name}/bias"
    if scale is None:
        return call.writer.constant(name, value)
    if isinstance(bias, Weights) and np.allclose(
        bias.scale.reshape(-1), scale, rtol=_SAME, atol=0.0
    ):
        codes = bias.codes.reshape(-1).astype(np.float64)
    else:
        codes = np.rint(value.astype(np.float64) / scale)
    if codes.max(initial=0) > _INT32.max or codes.min(initial=0) < _INT32.min:
        raise call.refused("a bias that int32 holds at input scale x weight scale", "a larger one")
    return call.writer.constant(name, codes.astype(np.int32), scale)
