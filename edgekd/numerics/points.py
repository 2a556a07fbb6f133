"""Codebook points in the space where every group of a weight spans 0 to 1."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgekd.numerics.affine import SMALLEST_RANGE
from edgekd.numerics.groups import Floats, Granularity, scale_shape, spread, to_rows


def group_span(weight: Floats, granularity: Granularity) -> tuple[Floats, Floats]:
    """Scale (largest - smallest) and offset (smallest) of each group.

    Bucket-wise linear scaling (Polino et al. 2018, section 2.2). A constant group gets a scale so
    small that whatever is added to its offset is nothing.

    >>> from edgekd.core.types import PerChannel
    >>> [a.tolist() for a in group_span(np.float32([[1, 3, 2], [5, 5, 5]]), PerChannel())]
    [[2.0, 9.999999960041972e-13], [1.0, 5.0]]
    """
    rows = to_rows(weight, granularity)
    low, high = rows.min(axis=1), rows.max(axis=1)
    scale = np.maximum(high - low, np.float32(SMALLEST_RANGE))
    shape = scale_shape(weight.shape, granularity)
    return scale.reshape(shape), low.reshape(shape)


def scaled(weight: Floats, scale: Floats, offset: Floats, granularity: Granularity) -> Floats:
    """(O, I, …) -> same shape, in [0, 1]."""
    shape = weight.shape
    moved: Floats = weight - spread(offset, shape, granularity)
    found: Floats = moved / spread(scale, shape, granularity)
    return found


def quantile_points(values: Floats, count: int) -> Floats:
    """Points at equal steps of probability, least and greatest value included (section 4.1).

    Args:
        values: Scaled weights, any shape.
        count: At least 2.

    Returns:
        float32, ascending, (count,); where no more than `count` values differ, those values.

    >>> quantile_points(np.float32([0, 0.1, 0.2, 0.3, 1]), 3).tolist()
    [0.0, 0.20000000298023224, 1.0]
    >>> quantile_points(np.float32([0, 1, 1, 0, 0]), 4).tolist()
    [0.0, 1.0]
    """
    different = np.unique(values)
    if different.size <= count:
        return different.astype(np.float32)
    found = np.quantile(values.reshape(-1), np.linspace(0, 1, count))
    # rounding to float32 and interpolation could put neighbours out of order
    points: Floats = np.sort(found.astype(np.float32))
    return points


def uniform_points(values: Floats, count: int) -> Floats:
    """Points at equal steps from 0 to 1, (count,); the values where no more than that differ."""
    different = np.unique(values)
    if different.size <= count:
        return different.astype(np.float32)
    return np.linspace(0, 1, count, dtype=np.float32)


def point_gradient(
    grad: Floats, codes: NDArray[np.integer], scale: Floats, granularity: Granularity, count: int
) -> NDArray[np.float64]:
    """``dL/dp_j = sum over i assigned to j of scale(i) * dL/dw_i`` (section 4), (count,).

    The assignment counts as constant.

    >>> from edgekd.core.types import PerChannel
    >>> codes, grad = np.int32([[0, 1], [1, 1]]), np.float32([[1, 2], [3, 4]])
    >>> point_gradient(grad, codes, np.float32([10, 100]), PerChannel(), 3).tolist()
    [10.0, 720.0, 0.0]
    """
    terms = grad.astype(np.float64) * spread(scale, grad.shape, granularity)
    return np.bincount(codes.reshape(-1), terms.reshape(-1), count).astype(np.float64)
