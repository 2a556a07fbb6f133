"""Bringing the channels of the inputs to mean 0 and deviation 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Self

import numpy as np
from pydantic import Field, model_validator

from edgekd.core.config import Config
from edgekd.core.errors import RecipeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CHUNK_ROWS = 2048
_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Scaling(Config):
    """How inputs are scaled: ``(value - mean) / std`` for each channel (or feature).

    Values stored as uint8 are first divided by 255, so `mean` and `std` are then on the 0 to 1
    scale, as they are published for pretrained models.

    Attributes:
        standardise: Whether to do it at all; if not, uint8 is only divided by 255.
        mean: One number per channel; when left out, computed on the train split.
        std: One number per channel; when left out, computed on the train split.
    """

    standardise: bool = True
    mean: tuple[_Finite, ...] | None = None
    std: tuple[_Positive, ...] | None = None

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        if (self.mean is None) != (self.std is None):
            raise ValueError("give both `mean` and `std`, or neither")
        if self.mean is not None and not self.standardise:
            raise ValueError("`mean` and `std` are not used with standardise: false")
        return self


@dataclass(frozen=True, slots=True)
class ChannelScale:
    """``(value / divisor - mean) / std`` along axis 1 of a batch; mean and std of length C."""

    divisor: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def apply(self, values: NDArray[np.generic]) -> NDArray[np.float32]:
        """Scale a batch (B, C, …); a fresh float32 array."""
        shape = (1, -1) + (1,) * (values.ndim - 2)
        out = values.astype(np.float32)
        out /= np.float32(self.divisor)
        out -= np.asarray(self.mean, np.float32).reshape(shape)
        out /= np.asarray(self.std, np.float32).reshape(shape)
        return out


def fit_scale(
    values: NDArray[np.generic], rows: NDArray[np.int64], scaling: Scaling
) -> ChannelScale:
    """The scale for samples (N, C, …), computed on `rows` unless it is given.

    A channel that never changes is shifted to 0 and not stretched. Computed figures are rounded
    to six digits, so that they, and the data's fingerprint, are the same on every machine.

    Raises:
        RecipeError: `mean` is given for another number of channels.
    """
    channels = values.shape[1]
    divisor = 255.0 if values.dtype == np.uint8 else 1.0
    if not scaling.standardise:
        return ChannelScale(divisor, (0.0,) * channels, (1.0,) * channels)
    if scaling.mean is not None and scaling.std is not None:
        for name, given in (("mean", scaling.mean), ("std", scaling.std)):
            if len(given) != channels:
                raise RecipeError(
                    f"scaling.{name} does not fit the data.",
                    expected=f"{channels} numbers, one per channel",
                    got=f"{len(given)}",
                )
        return ChannelScale(divisor, scaling.mean, scaling.std)
    moments = _byte_moments if values.dtype == np.uint8 else _float_moments
    mean, variance = moments(values, rows)
    std = np.sqrt(variance)
    std[std <= 1e-6 * np.maximum(np.abs(mean), 1e-6)] = divisor  # constant but for rounding
    return ChannelScale(divisor, _rounded(mean / divisor), _rounded(std / divisor))


def _byte_moments(
    values: NDArray[np.generic], rows: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Exact, by counting how often each of the 256 values stands in each channel."""
    counts = np.zeros((values.shape[1], 256), dtype=np.int64)
    for start in range(0, len(rows), _CHUNK_ROWS):
        chunk = values[rows[start : start + _CHUNK_ROWS]]
        for channel in range(len(counts)):
            counts[channel] += np.bincount(chunk[:, channel].ravel(), minlength=256)
    levels, total = np.arange(256), counts.sum(axis=1)
    mean = counts @ levels / total
    return mean, np.maximum(counts @ levels**2 / total - mean**2, 0.0)


def _float_moments(
    values: NDArray[np.generic], rows: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two passes in float64: the mean, then the mean square distance from it."""
    axes = (0, *range(2, values.ndim))
    count = len(rows) * int(np.prod(values.shape[2:]))
    chunks = [rows[start : start + _CHUNK_ROWS] for start in range(0, len(rows), _CHUNK_ROWS)]
    mean = sum(values[c].sum(axis=axes, dtype=np.float64) for c in chunks) / count
    shape = (1, -1) + (1,) * (values.ndim - 2)
    variance = sum(((values[c] - mean.reshape(shape)) ** 2).sum(axis=axes) for c in chunks) / count
    return mean, variance


def _rounded(numbers: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(float(f"{number:.6g}") for number in numbers)
