"""Points that are sums of powers of two, and the clipping range they fit a weight best with."""

from __future__ import annotations

from itertools import product

import numpy as np

from edgekd.numerics.codebook import midpoints
from edgekd.numerics.groups import Floats, Granularity, members, scale_shape, to_rows
from edgekd.numerics.ranges import search_scale


def additive_powers(bits: int) -> Floats:
    """Points between -1 and 1, ascending; one bit for the sign.

    With ``2 n`` magnitude bits a magnitude is a sum of n terms, each 0 or one of three powers of
    two; an odd bit adds a term that is 0 or one power. No power occurs twice, so no two
    magnitudes are equal.

    Source: Li et al. 2020 (arXiv 1909.13144), eq. 5 and 6; for odd widths the order of the powers
    in the authors' code.

    Args:
        bits: At least 2.

    Returns:
        ``2**bits - 1`` points: 0 has no sign.

    >>> additive_powers(2).tolist(), additive_powers(3).tolist()
    ([-1.0, 0.0, 1.0], [-1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0])
    """
    count, odd = divmod(bits - 1, 2)
    # the odd term's power stands between the second and the third of the others
    firsts = (0, count, 2 * count + odd)
    terms = [[0.0, *(2.0 ** -(first + i) for first in firsts)] for i in range(count)]
    if odd:
        terms.append([0.0, 2.0 ** -(2 * count)])
    sums = np.unique([sum(chosen) for chosen in product(*terms)])
    magnitudes = (sums / sums[-1]).astype(np.float32)
    return np.concatenate([-magnitudes[:0:-1], magnitudes])


def least_squares_clip(weight: Floats, granularity: Granularity, points: Floats) -> Floats:
    """Scale of `points` per group with a small squared error, never larger than at max|w|.

    Args:
        weight: (O, I, …), finite.
        granularity: Which weights share a scale.
        points: Ascending; 0 is one of them.

    Returns:
        float32, positive; shape as `groups.scale_shape` says. An all-zero group gets 1.
    """
    rows = to_rows(weight, granularity).astype(np.float32)
    edges = midpoints(points)
    peaks = np.abs(rows).max(axis=1) / np.abs(points).max()
    start = np.where(peaks > 0, peaks, np.float32(1.0)).astype(np.float32)
    found = search_scale(
        rows,
        members(weight.shape, granularity),
        start,
        lambda scale: points[np.searchsorted(edges, rows / scale[:, None])],
    )
    return found.reshape(scale_shape(weight.shape, granularity))
