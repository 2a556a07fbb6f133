"""Constant codes of an ONNX file, for whoever rewrites it for another runtime."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Weights:
    """Constant codes: int8 around 0, or an int32 bias.

    Attributes:
        codes: Of any shape.
        scale: One, or one for each index of `axis`.
        axis: Of the scales.
    """

    codes: NDArray[np.signedinteger[Any]]
    scale: NDArray[np.float32]
    axis: int

    def real(self) -> NDArray[np.float32]:
        """Decoded."""
        shape = [1] * self.codes.ndim
        if self.scale.size > 1:
            shape[self.axis] = -1
        return np.asarray(self.codes * self.scale.reshape(shape), np.float32)

    def transposed(self) -> Weights:
        """(A, B) -> (B, A)."""
        return Weights(self.codes.T.copy(), self.scale, 1 - self.axis)
