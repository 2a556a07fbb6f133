"""Any encoding as numbers: codes, real values, and what it costs to store."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgekd.core.types import Affine, Encoding
from edgekd.numerics import affine, codebook
from edgekd.numerics.groups import Floats

_FLOAT_BYTES = 4


def encode(values: Floats, encoding: Encoding) -> NDArray[np.int32]:
    """Codes of `values`, same shape."""
    if isinstance(encoding, Affine):
        return affine.encode(values, encoding)
    return codebook.encode(values, encoding)


def decode(codes: NDArray[np.integer], encoding: Encoding) -> Floats:
    """Real values of `codes`, float32, same shape."""
    if isinstance(encoding, Affine):
        return affine.decode(codes, encoding)
    return codebook.decode(codes, encoding)


def round_trip(values: Floats, encoding: Encoding) -> Floats:
    """``decode(encode(values))``."""
    return decode(encode(values, encoding), encoding)


def stored_bytes(count: int, encoding: Encoding) -> int:
    """Bytes of `count` codes at their real width, with scales, offsets, zero points and points.

    Zero points that are all 0 are not stored; others take a code's width each. Offsets that are
    the same multiple of every scale, as in a grid without a zero, take one number.
    """
    bits = count * encoding.bits
    floats = encoding.scale.size
    if encoding.offset is not None:
        ratio = encoding.offset / encoding.scale
        floats += 1 if np.allclose(ratio, ratio.flat[0], rtol=1e-6) else ratio.size
    if isinstance(encoding, Affine):
        bits += encoding.zero_point.size * encoding.bits if encoding.zero_point.any() else 0
    else:
        floats += encoding.centroids.size
    return -(-bits // 8) + _FLOAT_BYTES * floats
