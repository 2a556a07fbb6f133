"""Codebooks: ``real = centroids[code] * scale + offset``, the nearest point wins."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgekd.core.types import Codebook
from edgekd.numerics.groups import Floats, spread


def encode(values: Floats, book: Codebook) -> NDArray[np.int32]:
    """Index of the nearest point for each value, same shape; half-way goes to the lower one."""
    scaled = values.astype(np.float32)
    if book.offset is not None:
        scaled = scaled - spread(book.offset, values.shape, book.granularity)
    scaled = scaled / spread(book.scale, values.shape, book.granularity)
    codes: NDArray[np.int32] = np.searchsorted(midpoints(book.centroids), scaled).astype(np.int32)
    return codes


def decode(codes: NDArray[np.integer], book: Codebook) -> Floats:
    """Real values of `codes`, float32, same shape."""
    real = book.centroids[codes] * spread(book.scale, codes.shape, book.granularity)
    if book.offset is not None:
        real = real + spread(book.offset, codes.shape, book.granularity)
    floats: Floats = real.astype(np.float32)
    return floats


def midpoints(centroids: Floats) -> Floats:
    """Where the nearest point changes, (len(centroids) - 1,).

    >>> midpoints(np.float32([0.0, 1.0, 3.0])).tolist()
    [0.5, 2.0]
    """
    halves: Floats = (np.float32(0.5) * (centroids[1:] + centroids[:-1])).astype(np.float32)
    return halves
