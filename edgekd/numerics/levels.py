"""The real value of every code of an encoding, and whether integers hold them all."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgekd.core.types import Affine, Encoding
from edgekd.numerics.groups import Floats

_INT8 = np.iinfo(np.int8)
#: how far a point may be from its integer, as a fraction of the largest: float32 rounding
_EXACT = 1e-6


def levels(encoding: Encoding) -> Floats:
    """What each code stands for before scale, zero point and offset, (levels,).

    The index is the code's bits read as an unsigned number.

    >>> from edgekd.core.types import PerTensor
    >>> one, zero = np.float32(1), np.int32(0)
    >>> levels(Affine(2, True, PerTensor(), np.array(one), np.array(zero))).tolist()
    [0.0, 1.0, -2.0, -1.0]
    """
    if not isinstance(encoding, Affine):
        return encoding.centroids
    unsigned = np.arange(1 << encoding.bits)
    wraps = encoding.signed & (unsigned >= 1 << (encoding.bits - 1))
    return (unsigned - (wraps << encoding.bits)).astype(np.float32)


def integer_levels(encoding: Encoding) -> tuple[NDArray[np.int8], Floats] | None:
    """The encoding as ``table[code] * scale`` with int8 entries, which integer kernels compute.

    It exists where the points, shifted by zero point and offset, are multiples of one step:
    symmetric integers, ternary and binary weights, sums of powers of two.

    Returns:
        The table, (levels,), and the scale, float32 and shaped as the encoding's; None where
        the points are no such multiples, or groups are shifted differently.
    """
    shift = np.zeros_like(encoding.scale, np.float64)
    if isinstance(encoding, Affine):
        shift = shift - encoding.zero_point
    if encoding.offset is not None:
        shift = shift + encoding.offset.astype(np.float64) / encoding.scale
    if shift.size == 0 or float(np.ptp(shift)) > _EXACT * max(1.0, float(np.abs(shift).max())):
        return None
    exact = levels(encoding).astype(np.float64) + float(shift.reshape(-1)[0])
    largest = float(np.abs(exact).max())
    if largest == 0:
        return np.zeros(exact.size, np.int8), encoding.scale
    for most in range(1, -_INT8.min + 1):
        step = largest / most
        integers = np.rint(exact / step)
        if integers.min() < _INT8.min or integers.max() > _INT8.max:
            continue
        if float(np.abs(integers * step - exact).max()) <= _EXACT * largest:
            return integers.astype(np.int8), np.asarray(encoding.scale * step, np.float32)
    return None
