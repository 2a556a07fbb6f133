"""Codes of 1 to 8 bits in bytes, with no bit between them.

A byte holds fields of ``gcd(bits, 8)`` bits, the first code in the lowest. Where a code is wider
than a field (3, 5, 6 and 7 bits) it is split, lowest part first, and each part is a row of its
own. The bytes of 4 and 2 bits are those of ONNX INT4, UINT4, INT2 and UINT2 tensors.
"""

from __future__ import annotations

from math import gcd

import numpy as np
from numpy.typing import NDArray

_BYTE = 8


def field_bits(bits: int) -> int:
    """Width of the fields that codes of `bits` are split into.

    >>> [field_bits(bits) for bits in range(1, 9)]
    [1, 2, 1, 4, 1, 2, 1, 8]
    """
    return gcd(bits, _BYTE)


def pack(codes: NDArray[np.integer], bits: int) -> NDArray[np.uint8]:
    """Bytes of codes of any shape; signed ones in two's complement.

    Returns:
        (bits / field_bits, ceil(codes * field_bits / 8)); what is left of the last byte is 0.

    Raises:
        ValueError: A code needs more bits.

    >>> pack(np.array([1, 2, 3, 0, -1]), 2).tolist()
    [[57, 3]]
    """
    flat = codes.reshape(-1).astype(np.int64)
    if flat.size and not -(1 << bits) // 2 <= flat.min() <= flat.max() < 1 << bits:
        raise ValueError(f"codes from {flat.min()} to {flat.max()} do not fit in {bits} bits")
    width = field_bits(bits)
    shifts = np.arange(0, bits, width)[:, None]
    parts = (np.pad(flat, (0, -flat.size % (_BYTE // width))) >> shifts) & ((1 << width) - 1)
    in_byte = np.arange(0, _BYTE, width)
    fields = parts.reshape(len(shifts), -1, in_byte.size) << in_byte
    packed: NDArray[np.uint8] = fields.sum(axis=2).astype(np.uint8)
    return packed


def unpack(packed: NDArray[np.uint8], bits: int, count: int) -> NDArray[np.int32]:
    """The first `count` codes, unsigned, (count,)."""
    width = field_bits(bits)
    shifts = np.arange(0, bits, width)[:, None]
    in_byte = np.arange(0, _BYTE, width)
    fields = (packed[:, :, None].astype(np.int32) >> in_byte) & ((1 << width) - 1)
    codes: NDArray[np.int32] = (fields.reshape(len(shifts), -1) << shifts).sum(axis=0)
    return codes[:count].astype(np.int32)
