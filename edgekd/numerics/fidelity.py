"""How close one array is to another that it should equal, summed over samples."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(slots=True)
class Fidelity:
    """Collects sample after sample; nothing of them is kept.

    Attributes:
        n: Samples seen.
        max_abs: Largest absolute difference.
    """

    n: int = 0
    max_abs: float = 0.0
    _values: int = 0
    _sum: float = 0.0
    _signal: float = 0.0
    _noise: float = 0.0
    _got: float = 0.0
    _product: float = 0.0
    _absolute: float = 0.0

    def add(self, expected: NDArray[np.generic], got: NDArray[np.generic]) -> None:
        """See one sample of both, of equal shapes and finite."""
        a, b = np.asarray(expected, np.float64).ravel(), np.asarray(got, np.float64).ravel()
        self.n += 1
        if not a.size:
            return
        difference = np.abs(a - b)
        self.max_abs = max(self.max_abs, float(difference.max()))
        self._values += a.size
        self._sum += float(a.sum())
        self._signal += float(a @ a)
        self._noise += float(difference @ difference)
        self._got += float(b @ b)
        self._product += float(a @ b)
        self._absolute += float(difference.sum())

    @property
    def snr_db(self) -> float:
        """Signal-to-noise ratio, ``10 log10(sum expected**2 / sum difference**2)``, in dB.

        Infinite where both are equal; minus infinite where only zeros were expected.
        """
        if self._noise == 0.0:
            return math.inf
        return 10 * math.log10(self._signal / self._noise) if self._signal else -math.inf

    @property
    def cosine(self) -> float:
        """Cosine of the angle between both, over all samples as one vector."""
        if not self._signal or not self._got:
            return 1.0 if self._signal == self._got else 0.0
        return self._product / math.sqrt(self._signal * self._got)

    @property
    def mean_abs_share(self) -> float:
        """Mean absolute difference as a fraction of the expected values' standard deviation."""
        if not self._values:
            return 0.0
        mean = self._sum / self._values
        spread = math.sqrt(max(self._signal / self._values - mean * mean, 0.0))
        mean_abs = self._absolute / self._values
        return mean_abs / spread if spread else (0.0 if mean_abs == 0.0 else math.inf)
