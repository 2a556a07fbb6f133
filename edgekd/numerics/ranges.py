"""Scales of even grids with the least squared rounding error, all groups of a weight at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgekd.core.types import Affine
from edgekd.numerics.affine import SMALLEST_RANGE
from edgekd.numerics.groups import (
    Floats,
    Granularity,
    members,
    row_products,
    scale_shape,
    to_rows,
)

LevelKind = Literal["narrow", "full", "mid_rise"]

#: multiples of the min-max scale, eight an octave; above 1 where few values fit a coarser grid
#: better, far below it where one outlier stretches the range (two bits: a quarter is usual)
_COARSE = 2.0 ** (np.arange(8, -57, -1) / 8.0)
_FINE = 2.0 ** (np.array([-3, -2, -1, 1, 2, 3]) / 32.0)
_REFITS = 4


@dataclass(frozen=True, slots=True)
class Levels:
    """The points of a uniform grid in units of its scale: ``code + shift``.

    Attributes:
        low: Smallest code.
        high: Largest code.
        shift: 0, or one half for a grid without a zero.
    """

    low: int
    high: int
    shift: float = 0.0

    @classmethod
    def of(cls, kind: LevelKind, bits: int) -> Levels:
        """Signed levels of one kind.

        Args:
            kind: narrow leaves the most negative code out (-1, 0, 1 at two bits); full has every
                two's complement code (-2, -1, 0, 1); mid_rise is symmetric with every code and
                without a zero (-1.5, -0.5, 0.5, 1.5).
            bits: At least 2, or 1 for mid_rise.
        """
        half = 1 << (bits - 1)
        if kind == "narrow":
            return cls(1 - half, half - 1)
        return cls(-half, half - 1, 0.5 if kind == "mid_rise" else 0.0)

    @property
    def top(self) -> float:
        """The largest point."""
        return self.high + self.shift

    def affine(self, scale: Floats, granularity: Granularity, bits: int) -> Affine:
        """Signed codes on these levels."""
        scale = np.asarray(scale, np.float32)
        return Affine(
            bits,
            True,
            granularity,
            scale,
            np.zeros(scale.shape, np.int32),
            narrow=self.low == -self.high and not self.shift,
            offset=np.asarray(scale * np.float32(self.shift)) if self.shift else None,
        )


def min_max_scale(rows: Floats, levels: Levels) -> Floats:
    """Smallest scale whose outermost points cover each row, (groups, members) -> (groups,).

    An all-zero row gets 1, or next to nothing where the grid has no zero.
    """
    top, bottom = np.float32(levels.top), np.float32(-(levels.low + levels.shift))
    scale = np.maximum(rows.max(1, initial=0.0) / top, -rows.min(1, initial=0.0) / bottom)
    empty = np.abs(rows).max(1, initial=0.0) <= SMALLEST_RANGE
    return np.where(empty, np.float32(SMALLEST_RANGE if levels.shift else 1.0), scale)


def least_squares_scale(
    weight: Floats, granularity: Granularity, *, bits: int, kind: LevelKind = "narrow"
) -> Floats:
    """Scale per group with a small squared error, never a larger one than min-max has.

    A grid of multiples of the min-max scale, a finer one around the best of them, then the scale
    that is the least-squares fit to the points p, ``<w, p> / <p, p>``, a few times over (Lloyd's
    alternation; each fit can only lower the error). A candidate is taken only where its error,
    measured with the float32 scale that is stored, is smaller.

    Args:
        weight: (O, I, …), finite.
        granularity: Which weights share a scale.
        bits: At least 2, or 1 for mid_rise.
        kind: See `Levels.of`.

    Returns:
        float32, positive; shape as `groups.scale_shape` says. An all-zero group gets 1, or next
        to nothing where the grid has no zero.
    """
    rows = to_rows(weight, granularity).astype(np.float32)
    counts = members(weight.shape, granularity)
    levels = Levels.of(kind, bits)
    shift = np.float32(levels.shift)
    start = min_max_scale(rows, levels)
    best = search_scale(
        rows, counts, start, lambda scale: _codes(rows, scale, scale * shift, levels) + shift
    )
    return best.reshape(scale_shape(weight.shape, granularity))


def search_scale(
    rows: Floats,
    counts: NDArray[np.int64],
    start: Floats,
    nearest: Callable[[Floats], Floats],
) -> Floats:
    """The search of `least_squares_scale` over any points.

    Args:
        rows: (groups, members).
        counts: From `groups.members`.
        start: (groups,); a row that is all zero keeps it.
        nearest: (groups,) scales -> (groups, members), each weight's point in units of its scale.

    Returns:
        (groups,)
    """
    empty = np.abs(rows).max(axis=1, initial=0.0) <= SMALLEST_RANGE
    best = start.copy()

    def error_of(scale: Floats) -> NDArray[np.float64]:
        error = (nearest(scale) * scale[:, None] - rows).astype(np.float64)
        return row_products(error, error, counts)

    least = error_of(best)

    def offer(scale: Floats) -> None:
        usable = np.isfinite(scale) & (scale > 0) & ~empty
        scale = np.where(usable, scale, best).astype(np.float32)
        error = error_of(scale)
        better = error < least
        best[better], least[better] = scale[better], error[better]

    for factor in _COARSE:
        offer((start * factor).astype(np.float32))
    coarse = best.copy()
    for factor in _FINE:
        offer((coarse * factor).astype(np.float32))
    for _ in range(_REFITS):
        points = nearest(best)
        power = row_products(points, points, counts)
        fit = row_products(rows, points, counts) / np.where(power > 0, power, np.inf)
        offer(fit.astype(np.float32))
    return best


def least_squares_line(
    weight: Floats, granularity: Granularity, *, bits: int
) -> tuple[Floats, Floats]:
    """Scale and offset per group with a small squared error, never a larger one than min-max has.

    As `least_squares_scale`, with grids around each group's mean and the line fitted to the codes
    by least squares.

    Args:
        weight: (O, I, …), finite.
        granularity: Which weights share a scale and an offset.
        bits: At least 1; codes are unsigned, ``real = code * scale + offset``.

    Returns:
        float32 scale, positive, and float32 offset; shape as `groups.scale_shape` says. A
        constant group is met exactly, with scale 1.
    """
    rows = to_rows(weight, granularity).astype(np.float32)
    counts = members(weight.shape, granularity)
    levels = Levels(0, (1 << bits) - 1)
    start, low, constant = min_max_line(rows, bits=bits)
    best, best_offset = start.copy(), low.copy()
    wide = rows.astype(np.float64)
    mean = row_products(wide, np.ones_like(wide), counts) / counts

    def error_of(scale: Floats, offset: Floats) -> NDArray[np.float64]:
        return _squared_error(rows, _codes(rows, scale, offset, levels), scale, offset, counts)

    least = error_of(best, best_offset)

    def offer(scale: NDArray[np.floating], offset: NDArray[np.floating]) -> None:
        usable = np.isfinite(scale) & np.isfinite(offset) & (scale > 0) & ~constant
        scale = np.where(usable, scale, best).astype(np.float32)
        offset = np.where(usable, offset, best_offset).astype(np.float32)
        error = error_of(scale, offset)
        better = error < least
        best[better], best_offset[better] = scale[better], offset[better]
        least[better] = error[better]

    for factors in (_COARSE, _FINE):
        around = best.astype(np.float64) if factors is _FINE else start.astype(np.float64)
        for factor in factors:
            offer(around * factor, mean - around * factor * levels.high / 2)
    for _ in range(2 * _REFITS):
        codes = _codes(rows, best, best_offset, levels).astype(np.float64)
        middle = row_products(codes, np.ones_like(codes), counts) / counts
        spread = row_products(codes, codes, counts) / counts - middle**2
        together = row_products(codes, wide, counts) / counts - middle * mean
        slope = together / np.where(spread > 0, spread, np.inf)
        offer(slope, mean - slope * middle)
    shape = scale_shape(weight.shape, granularity)
    return best.reshape(shape), best_offset.reshape(shape)


def min_max_line(rows: Floats, *, bits: int) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Scale and offset that put each row's extremes on the outermost of ``2**bits`` points.

    Source: linear scaling of Polino et al. 2018 (arXiv 1802.05668), section 2.1.

    Returns:
        float32 scale, float32 offset, and which rows are constant; those get scale 1, and their
        one value as the offset.
    """
    low, high = rows.min(1), rows.max(1)
    width = high - low
    constant = width <= SMALLEST_RANGE
    scale = np.where(constant, np.float32(1.0), width / np.float32((1 << bits) - 1))
    return scale.astype(np.float32), low, constant


def mean_abs_scale(
    weight: Floats, granularity: Granularity, *, bits: int, kind: LevelKind = "narrow"
) -> Floats:
    """``2 mean|w| / sqrt(largest point)`` per group (Esser et al. 2020, section 2.1).

    >>> from edgekd.core.types import PerChannel
    >>> mean_abs_scale(np.float32([[1, -3], [0, 0]]), PerChannel(), bits=2).tolist()
    [4.0, 1.0]
    """
    rows = np.abs(to_rows(weight, granularity))
    levels = Levels.of(kind, bits)
    counts = members(weight.shape, granularity)
    means = row_products(rows, np.ones_like(rows), counts) / counts
    scale = 2 * means / np.sqrt(levels.top)
    nothing = SMALLEST_RANGE if levels.shift else 1.0
    safe = np.where(means > SMALLEST_RANGE, scale, nothing).astype(np.float32)
    return safe.reshape(scale_shape(weight.shape, granularity))


def _codes(rows: Floats, scale: Floats, offset: Floats, levels: Levels) -> Floats:
    codes = rows - offset[:, None]
    codes /= scale[:, None]
    np.rint(codes, out=codes)
    return np.clip(codes, np.float32(levels.low), np.float32(levels.high), out=codes)


def _squared_error(
    rows: Floats, codes: Floats, scale: Floats, offset: Floats, counts: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Of each row; summed in float64, so that near-equal candidates compare rightly."""
    error = (codes * scale[:, None] + offset[:, None] - rows).astype(np.float64)
    return row_products(error, error, counts)
