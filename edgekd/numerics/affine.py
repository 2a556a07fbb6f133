"""Affine quantization of arrays: ``real = (code - zero_point) * scale``.

Everything is float32 and rounds half to even, as ONNX QuantizeLinear and torch.round do, so that
the same numbers come out of training, export and runtimes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgekd.core.types import Affine, PerBlock, PerChannel, PerTensor

Floats = NDArray[np.float32]
#: a range narrower than this is treated as empty: its scale would be a denormal
SMALLEST_RANGE = 1e-12


def symmetric_scale(max_abs: Floats, *, bits: int) -> Floats:
    """Scale that puts ±`max_abs` on the outermost codes; an all-zero range gets scale 1.

    >>> symmetric_scale(np.float32([12.7, 0.0]), bits=8).round(4).tolist()
    [0.1, 1.0]
    """
    largest_code = max((1 << (bits - 1)) - 1, 1)
    safe = np.where(max_abs > SMALLEST_RANGE, max_abs, np.float32(largest_code))
    return (safe / np.float32(largest_code)).astype(np.float32)


def asymmetric_range(low: float, high: float, *, bits: int) -> tuple[Floats, NDArray[np.int32]]:
    """Scale and zero point of unsigned codes that cover [low, high] and hold 0 exactly.

    Source: Jacob et al. 2018 (arXiv 1712.05877), section 3.

    >>> scale, zero_point = asymmetric_range(-1.0, 3.0, bits=8)
    >>> round(float(scale), 5), int(zero_point)
    (0.01569, 64)
    """
    low, high = min(low, 0.0), max(high, 0.0)
    levels = (1 << bits) - 1
    if high - low <= SMALLEST_RANGE:
        return np.array(1.0, np.float32), np.array(0, np.int32)
    scale = np.array((high - low) / levels, np.float32)
    return scale, np.array(np.clip(np.rint(-low / scale), 0, levels), np.int32)


def encode(values: Floats, affine: Affine) -> NDArray[np.int32]:
    """Codes of `values`, same shape, saturated at the ends of the code range."""
    scale, zero_point = _aligned(values, affine)
    codes = np.rint(values.astype(np.float32) / scale) + zero_point
    clipped: NDArray[np.int32] = np.clip(codes, affine.code_min, affine.code_max).astype(np.int32)
    return clipped


def decode(codes: NDArray[np.integer], affine: Affine) -> Floats:
    """Real values of `codes`, float32, same shape."""
    scale, zero_point = _aligned(codes, affine)
    return ((codes - zero_point).astype(np.float32) * scale).astype(np.float32)


def round_trip(values: Floats, affine: Affine) -> Floats:
    """``decode(encode(values))``."""
    return decode(encode(values, affine), affine)


def channel_max_abs(weight: Floats, granularity: PerTensor | PerChannel) -> Floats:
    """Largest magnitude per scale group: () per tensor, (O,) per channel."""
    if isinstance(granularity, PerTensor):
        return np.array(np.abs(weight).max(initial=0.0), np.float32)
    rows = np.moveaxis(weight, granularity.axis, 0).reshape(weight.shape[granularity.axis], -1)
    return np.array(np.abs(rows).max(axis=1, initial=0.0), np.float32)


def _aligned(values: NDArray[np.generic], affine: Affine) -> tuple[Floats, NDArray[np.int32]]:
    """Scale and zero point reshaped to broadcast against `values`."""
    match affine.granularity:
        case PerTensor():
            return affine.scale.reshape(()), affine.zero_point.reshape(())
        case PerChannel(axis=axis):
            shape = [1] * values.ndim
            shape[axis] = -1
            return affine.scale.reshape(shape), affine.zero_point.reshape(shape)
        case PerBlock(size=size):
            # blocks run through memory order; the last one may be short
            spread = np.repeat(affine.scale, size)[: values.size].reshape(values.shape)
            zero = np.repeat(affine.zero_point, size)[: values.size].reshape(values.shape)
            return spread, zero
