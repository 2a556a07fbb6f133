"""Symmetric scales with the least squared rounding error, for all groups of a weight at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgekd.numerics.affine import SMALLEST_RANGE, symmetric_scale
from edgekd.numerics.groups import Floats, Granularity, scale_shape, to_rows

#: multiples of the min-max scale, eight an octave; above 1 where few values fit a coarser grid
#: better, far below it where one outlier stretches the range (two bits: a quarter is usual)
_COARSE = 2.0 ** (np.arange(8, -57, -1) / 8.0)
_FINE = 2.0 ** (np.array([-3, -2, -1, 1, 2, 3]) / 32.0)
_REFITS = 4


def least_squares_scale(weight: Floats, granularity: Granularity, *, bits: int) -> Floats:
    """Scale per group with a small squared error, never a larger one than min-max has.

    A grid of multiples of the min-max scale, a finer one around the best of them, then the scale
    that is the least-squares fit to the codes, ``<w, q> / <q, q>``, a few times over (Lloyd's
    alternation; each fit can only lower the error). A candidate is taken only where its error,
    measured with the float32 scale that is stored, is smaller.

    Args:
        weight: (O, I, …), finite.
        granularity: Which weights share a scale.
        bits: At least 2; codes are symmetric, ``|q| <= 2**(bits - 1) - 1``.

    Returns:
        float32, positive; shape as `groups.scale_shape` says. An all-zero group gets 1.
    """
    rows = to_rows(weight, granularity).astype(np.float32)
    largest_code = np.float32((1 << (bits - 1)) - 1)
    peaks = np.abs(rows).max(axis=1, initial=0.0)
    start = symmetric_scale(peaks, bits=bits)
    best = start.copy()
    least = _squared_error(rows, _codes(rows, best, largest_code), best)

    def offer(scale: Floats) -> None:
        scale = np.where(peaks > SMALLEST_RANGE, scale, np.float32(1.0)).astype(np.float32)
        usable = np.isfinite(scale) & (scale > 0)
        scale = np.where(usable, scale, best)
        error = _squared_error(rows, _codes(rows, scale, largest_code), scale)
        better = error < least
        best[better], least[better] = scale[better], error[better]

    for factor in _COARSE:
        offer((start * factor).astype(np.float32))
    coarse = best.copy()
    for factor in _FINE:
        offer((coarse * factor).astype(np.float32))
    for _ in range(_REFITS):
        codes = _codes(rows, best, largest_code)
        power = np.einsum("ij,ij->i", codes, codes)
        fit = np.einsum("ij,ij->i", rows, codes) / np.maximum(power, np.float32(1.0))
        offer(fit.astype(np.float32))
    return best.reshape(scale_shape(weight.shape, granularity))


def mean_abs_scale(weight: Floats, granularity: Granularity, *, bits: int) -> Floats:
    """``2 mean|w| / sqrt(largest code)`` per group (Esser et al. 2020, section 2.1).

    >>> from edgekd.core.types import PerChannel
    >>> mean_abs_scale(np.float32([[1, -3], [0, 0]]), PerChannel(), bits=2).tolist()
    [4.0, 1.0]
    """
    means = np.abs(to_rows(weight, granularity)).mean(axis=1)
    scale = 2 * means / np.sqrt(np.float32((1 << (bits - 1)) - 1))
    safe = np.where(means > SMALLEST_RANGE, scale, 1.0).astype(np.float32)
    return safe.reshape(scale_shape(weight.shape, granularity))


def _codes(rows: Floats, scale: Floats, largest_code: np.float32) -> Floats:
    codes = rows / scale[:, None]
    np.rint(codes, out=codes)
    return np.clip(codes, -largest_code, largest_code, out=codes)


def _squared_error(rows: Floats, codes: Floats, scale: Floats) -> NDArray[np.float64]:
    """Of each row; summed in float64, so that near-equal candidates compare rightly."""
    error = (codes * scale[:, None] - rows).astype(np.float64)
    found: NDArray[np.float64] = np.einsum("ij,ij->i", error, error)
    return found
