"""Weights that share a scale, side by side: any granularity as rows of a matrix."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from edgekd.core.types import PerBlock, PerChannel, PerTensor

Granularity = PerTensor | PerChannel | PerBlock
Floats = NDArray[np.float32]
_Number = TypeVar("_Number", bound=np.generic)


def scale_shape(shape: tuple[int, ...], granularity: Granularity) -> tuple[int, ...]:
    """Shape of the scales of a weight of `shape`.

    >>> scale_shape((4, 3), PerTensor()), scale_shape((4, 3), PerBlock(size=5))
    ((), (3,))
    """
    match granularity:
        case PerTensor():
            return ()
        case PerChannel(axis=axis):
            return (shape[axis],)
        case PerBlock(size=size):
            return (-(-int(np.prod(shape)) // size),)


def to_rows(weight: Floats, granularity: Granularity) -> Floats:
    """(O, I, …) -> (groups, members), one row per scale.

    A short last block repeats its last value, which keeps minimum and maximum; whatever counts
    members counts the repeats out (`members`).
    """
    match granularity:
        case PerTensor():
            return weight.reshape(1, -1)
        case PerChannel(axis=axis):
            return np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)
        case PerBlock(size=size):
            flat = weight.reshape(-1)
            size = min(size, flat.size)
            return np.pad(flat, (0, -flat.size % size), mode="edge").reshape(-1, size)


def from_rows(rows: Floats, shape: tuple[int, ...], granularity: Granularity) -> Floats:
    """The inverse of `to_rows`."""
    match granularity:
        case PerTensor():
            return rows.reshape(shape)
        case PerChannel(axis=axis):
            rest = [n for i, n in enumerate(shape) if i != axis % len(shape)]
            return np.moveaxis(rows.reshape(shape[axis], *rest), 0, axis)
        case PerBlock():
            return rows.reshape(-1)[: int(np.prod(shape))].reshape(shape)


def members(shape: tuple[int, ...], granularity: Granularity) -> NDArray[np.int64]:
    """How many weights share each scale, (groups,)."""
    count, groups = int(np.prod(shape)), int(np.prod(scale_shape(shape, granularity)))
    found = np.full(groups, -(-count // groups), np.int64)
    if isinstance(granularity, PerBlock):
        found[:] = granularity.size
        found[-1] = count - granularity.size * (groups - 1)
    return found


def row_products(
    a: NDArray[np.floating], b: NDArray[np.floating], counts: NDArray[np.int64]
) -> NDArray[np.float64]:
    """``sum(a * b)`` of each row, (groups, members) -> (groups,); repeats are left out.

    Args:
        a: Rows, as `to_rows` gives them.
        b: Same shape.
        counts: From `members`.
    """
    found: NDArray[np.float64] = np.einsum("ij,ij->i", a, b).astype(np.float64)
    if counts[-1] < a.shape[1]:
        found[-1] = a[-1, : counts[-1]] @ b[-1, : counts[-1]]
    return found


def spread(
    per_group: NDArray[_Number], shape: tuple[int, ...], granularity: Granularity
) -> NDArray[_Number]:
    """One number per group, shaped to broadcast against a weight of `shape`."""
    match granularity:
        case PerTensor():
            return per_group.reshape(())
        case PerChannel(axis=axis):
            aligned = [1] * len(shape)
            aligned[axis] = -1
            return per_group.reshape(aligned)
        case PerBlock(size=size):
            count = int(np.prod(shape))
            return np.repeat(per_group, min(size, count))[:count].reshape(shape)
