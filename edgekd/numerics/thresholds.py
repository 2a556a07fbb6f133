"""Scales of one-bit and ternary weights, from means of magnitudes."""

from __future__ import annotations

import numpy as np

from edgekd.numerics.affine import SMALLEST_RANGE
from edgekd.numerics.groups import Floats, Granularity, members, row_products, scale_shape, to_rows

#: share of the mean magnitude below which a ternary weight is 0 (Li & Liu 2016, section 2.2)
TERNARY_THRESHOLD = 0.7


def binary_scale(weight: Floats, granularity: Granularity) -> Floats:
    """``mean |w|`` per group: the scale of ±1 with the least squared error.

    Source: Rastegari et al. 2016 (arXiv 1603.05279), eq. 6.

    Returns:
        float32, shape as `groups.scale_shape` says; next to nothing for an all-zero group, which
        so stays silent.
    """
    sizes = np.abs(to_rows(weight, granularity).astype(np.float64))
    counts = members(weight.shape, granularity)
    means = row_products(sizes, np.ones_like(sizes), counts) / counts
    found = np.maximum(means, SMALLEST_RANGE).astype(np.float32)
    return found.reshape(scale_shape(weight.shape, granularity))


def ternary_scale(weight: Floats, granularity: Granularity) -> Floats:
    """Mean magnitude of the weights above the threshold, per group.

    Source: Li & Liu 2016 (arXiv 1605.04711), eq. 5 and 6.

    Returns:
        float32, shape as `groups.scale_shape` says; 1 for an all-zero group.

    >>> from edgekd.core.types import PerTensor
    >>> float(ternary_scale(np.float32([[0.1, -0.1, 2, -4]]), PerTensor()))
    3.0
    """
    sizes = np.abs(to_rows(weight, granularity).astype(np.float64))
    counts = members(weight.shape, granularity)
    means = row_products(sizes, np.ones_like(sizes), counts) / counts
    kept = (sizes > TERNARY_THRESHOLD * means[:, None]).astype(np.float64)
    total, count = row_products(sizes, kept, counts), row_products(kept, kept, counts)
    found = np.where(total > SMALLEST_RANGE, total / np.maximum(count, 1), 1.0)
    return found.astype(np.float32).reshape(scale_shape(weight.shape, granularity))
