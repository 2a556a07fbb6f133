"""Arrays on the wire: a list of names, types and shapes, and then plain bytes.

Not .npz: an archive can unpack to any size, and these come from the other side of a network.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

DTYPES = (
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "float16", "float32", "float64",
)  # fmt: skip


def pack(arrays: Mapping[str, Any]) -> tuple[list[list[Any]], list[bytes]]:
    """What `unpack` takes back: ``[[name, dtype, shape], …]`` and the bytes of each in turn.

    Raises:
        ValueError: An array holds something else than numbers.
    """
    heads, bodies = [], []
    for name, value in arrays.items():
        array = np.asarray(value)
        if array.dtype.name not in DTYPES:
            raise ValueError(f"{name!r} holds {array.dtype.name}, which cannot be sent")
        heads.append([name, array.dtype.name, list(array.shape)])
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        bodies.append(little.tobytes())
    return heads, bodies


def unpack(heads: Any, body: bytes) -> dict[str, Any]:
    """The arrays by name, each in memory of its own.

    Raises:
        ValueError: The heads are not those of `pack`, or the bytes are not exactly theirs.
    """
    found: dict[str, Any] = {}
    start = 0
    for head in heads:
        name, dtype, shape = head
        sizes_ok = all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in shape)
        if not isinstance(name, str) or name in found or dtype not in DTYPES or not sizes_ok:
            raise ValueError("a head is not [name, dtype, shape]")
        kind = np.dtype(dtype).newbyteorder("<")
        count = math.prod(shape)
        if count * kind.itemsize > len(body) - start:
            raise ValueError("the arrays need more bytes than came")
        flat = np.frombuffer(body, kind, count, start)
        found[name] = flat.astype(np.dtype(dtype)).reshape(shape)
        start += count * kind.itemsize
    if start != len(body):
        raise ValueError("more bytes came than the arrays need")
    return found
