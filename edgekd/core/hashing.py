"""Content hashes: what decides whether a stage must be done again."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray


def sha256_bytes(data: bytes) -> str:
    """Hex digest of `data`."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Hex digest of a file's content, read in pieces."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def sha256_json(value: Any) -> str:
    """Hex digest of a JSON value, independent of key order.

    >>> sha256_json({"b": 1, "a": [2]}) == sha256_json({"a": [2], "b": 1})
    True
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return sha256_bytes(text.encode())


def sha256_arrays(arrays: dict[str, NDArray[np.generic]]) -> str:
    """Hex digest over names, dtypes, shapes and bytes of arrays, whatever their memory layout.

    Raises:
        TypeError: An array of Python objects, whose bytes are addresses.
    """
    h = hashlib.sha256()
    for name in sorted(arrays):
        a = arrays[name]
        if a.dtype.hasobject:
            raise TypeError(f"the array {name!r} holds Python objects, which have no stable bytes")
        header = json.dumps([name, a.dtype.str, a.shape])
        h.update(f"{header}\n".encode())
        flat = (a if a.flags.c_contiguous else a.copy()).reshape(-1)
        h.update(flat.view("u1").data)
    return h.hexdigest()
