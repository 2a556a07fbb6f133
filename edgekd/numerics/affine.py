"""Affine quantization of arrays: ``real = (code - zero_point) * scale + offset``.

Everything is float32 and rounds half to even, as ONNX QuantizeLinear and torch.round do, so that
the same numbers come out of training, export and runtimes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgekd.core.types import Affine
from edgekd.numerics.groups import Granularity, scale_shape, spread, to_rows

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
    values = values.astype(np.float32)
    if affine.offset is not None:
        values = values - spread(affine.offset, values.shape, affine.granularity)
    codes = np.rint(values / scale) + zero_point
    clipped: NDArray[np.int32] = np.clip(codes, affine.code_min, affine.code_max).astype(np.int32)
    return clipped


def decode(codes: NDArray[np.integer], affine: Affine) -> Floats:
    """Real values of `codes`, float32, same shape."""
    scale, zero_point = _aligned(codes, affine)
    real = ((codes - zero_point).astype(np.float32) * scale).astype(np.float32)
    if affine.offset is not None:
        real = (real + spread(affine.offset, codes.shape, affine.granularity)).astype(np.float32)
    return real


def round_trip(values: Floats, affine: Affine) -> Floats:
    """``decode(encode(values))``."""
    return decode(encode(values, affine), affine)


def group_max_abs(weight: Floats, granularity: Granularity) -> Floats:
    """Largest magnitude per scale group; shape as `groups.scale_shape` says."""
    peaks: Floats = np.abs(to_rows(weight, granularity)).max(axis=1, initial=0.0)
    return peaks.reshape(scale_shape(weight.shape, granularity))


def _aligned(values: NDArray[np.generic], affine: Affine) -> tuple[Floats, NDArray[np.int32]]:
    """Scale and zero point reshaped to broadcast against `values`."""
    scale = spread(affine.scale, values.shape, affine.granularity)
    zero_point = spread(affine.zero_point, values.shape, affine.granularity)
    return scale, zero_point
