"""Ranges of activations, seen on calibration samples from the train split."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from edgekd.core.errors import DataError
from edgekd.core.types import Affine, PerTensor
from edgekd.numerics.affine import asymmetric_range, round_trip, symmetric_scale

if TYPE_CHECKING:
    from numpy.typing import NDArray

RangeRule = Literal["minmax", "percentile", "mse"]
_KEPT_VALUES = 1 << 17
_PERCENTILE = 99.99
_MSE_SHRINKS = np.linspace(1.0, 0.4, 31)


class Observer:
    """Collects one tensor: exact extremes, and an even sample of its values.

    Args:
        name: Of the tensor, for errors.
        seed: Of the sampling; the same data gives the same sample.
        kept_values: Size of the sample.
    """

    def __init__(self, name: str, *, seed: int, kept_values: int = _KEPT_VALUES) -> None:
        self.name = name
        self._kept_values = kept_values
        self.low, self.high = np.inf, -np.inf
        self._rng = np.random.default_rng(seed)
        self._kept: list[NDArray[np.float32]] = []

    def observe(self, values: NDArray[np.float32], *, share: float) -> None:
        """See some values.

        Args:
            values: Any shape.
            share: Of all the samples that will be seen, that these come from; above 0, at most 1.

        Raises:
            DataError: The activation is not finite.
        """
        low, high = float(values.min()), float(values.max())
        if not np.isfinite([low, high]).all():
            raise DataError(
                f"The activation {self.name!r} is not finite on calibration data.",
                expected="finite numbers",
                got=f"from {low} to {high}",
                todo="train longer or with a lower learning rate; look at the input scaling",
            )
        self.low, self.high = min(self.low, low), max(self.high, high)
        flat = values.reshape(-1)
        kept = max(int(self._kept_values * share), 1)
        if flat.size > kept:
            flat = flat[self._rng.integers(0, flat.size, kept)]
        self._kept.append(flat.astype(np.float32))

    def affine(self, rule: RangeRule, *, bits: int, signed: bool) -> Affine:
        """The encoding that `rule` chooses from what was seen.

        Args:
            rule: minmax (extremes), percentile (99.99 % of the mass), mse (the shrunk range with
                the least squared rounding error).
            bits: Bits per code.
            signed: Symmetric with zero point 0 (what TensorRT wants), or unsigned and asymmetric.
        """
        if not self._kept:
            raise DataError(
                f"Nothing was seen of the activation {self.name!r}.",
                expected="at least one calibration batch",
            )
        sample = np.concatenate(self._kept)
        low, high = self.low, self.high
        if rule == "percentile":
            low = float(np.percentile(sample, 100 - _PERCENTILE)) if low < 0 else low
            high = float(np.percentile(sample, _PERCENTILE))
        if rule != "mse":
            return _affine(low, high, bits=bits, signed=signed)
        tries = [_affine(low * s, high * s, bits=bits, signed=signed) for s in _MSE_SHRINKS]
        # in float64 no square overflows
        wide = sample.astype(np.float64)
        errors = [float(np.square(round_trip(sample, a) - wide).mean()) for a in tries]
        return tries[int(np.argmin(errors))]


def _affine(low: float, high: float, *, bits: int, signed: bool) -> Affine:
    if signed:
        scale = symmetric_scale(np.array(max(abs(low), abs(high)), np.float32), bits=bits)
        return Affine(bits, True, PerTensor(), scale, np.array(0, np.int32))
    scale, zero_point = asymmetric_range(low, high, bits=bits)
    return Affine(bits, False, PerTensor(), scale, zero_point)
