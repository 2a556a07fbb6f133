"""Batches of the train split, in an order that depends on (seed, epoch) alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from edgekd.core.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from edgekd.tasks._contract import Data, Split

#: a split up to this size is read once and kept in memory
RESIDENT_BYTES = 1 << 30
_CHUNK = 2048
_ORDER_STREAM = 0x6F72646572  # keeps the order apart from every other use of the same seed


@dataclass(frozen=True)
class ResidentSplit:
    """A split read once into one array.

    Attributes:
        inputs: (N, *input_shape).
        labels: (N,).
    """

    inputs: NDArray[np.float32]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """Inputs of those samples, (B, *input_shape)."""
        return self.inputs[indices]


def resident_data(data: Data, *, limit_bytes: int = RESIDENT_BYTES) -> Data:
    """The same data with train and validation in memory where they fit; for many trainings."""
    return replace(
        data,
        train=resident(data.train, data.input_shape, limit_bytes=limit_bytes),
        validation=resident(data.validation, data.input_shape, limit_bytes=limit_bytes),
    )


def resident(
    split: Split, input_shape: tuple[int, ...], *, limit_bytes: int = RESIDENT_BYTES
) -> Split:
    """The split in memory if it takes at most `limit_bytes`, else the split itself."""
    size = len(split) * math.prod(input_shape) * 4
    if isinstance(split, ResidentSplit) or size > limit_bytes:
        return split
    inputs = np.empty((len(split), *input_shape), np.float32)
    for start in range(0, len(split), _CHUNK):
        indices = np.arange(start, min(start + _CHUNK, len(split)))
        inputs[indices] = split.batch(indices)
    return ResidentSplit(inputs, np.asarray(split.labels, np.int64))


class Feed:
    """The train split as a sequence of batches.

    Args:
        split: The train split.
        batch_size: Samples of one step; a last batch of one sample is dropped.
        seed: Of the order.

    Raises:
        DataError: There are fewer than two samples.
    """

    def __init__(self, split: Split, batch_size: int, seed: int) -> None:
        if len(split) < 2:
            raise DataError(
                "The train split is too small to train on.",
                expected="at least 2 samples",
                got=f"{len(split)}",
            )
        self.split, self.batch_size, self.seed = split, batch_size, seed
        rest = len(split) % batch_size
        self.steps_per_epoch = len(split) // batch_size + (rest >= 2)
        self._labels = torch.from_numpy(np.asarray(split.labels, np.int64))
        self._order: tuple[int, NDArray[np.int64]] | None = None

    def indices(self, epoch: int, step: int) -> NDArray[np.int64]:
        """Which samples step `step` of epoch `epoch` is about, (B,)."""
        if self._order is None or self._order[0] != epoch:
            generator = np.random.default_rng([_ORDER_STREAM, self.seed, epoch])
            self._order = epoch, generator.permutation(len(self.split))
        return self._order[1][step * self.batch_size : (step + 1) * self.batch_size]

    def read(self, indices: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Inputs (B, *input_shape) as the split gives them, and labels (B,)."""
        return torch.from_numpy(self.split.batch(indices)), self._labels[indices]
