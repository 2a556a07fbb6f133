"""What flows between the nodes of an ONNX file that runs in torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.ao.quantization.fx import _decomposed  # noqa: F401  # defines quantized_decomposed

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor

Q = torch.ops.quantized_decomposed
INT8 = (-128, 127, torch.int8)


@dataclass(frozen=True, slots=True)
class Codes:
    """A tensor on a grid, as int8 codes.

    Every reader decodes it for itself, because a runtime looks for a DequantizeLinear in front of
    each of its kernels.
    """

    codes: Tensor
    scale: float
    zero_point: int

    def real(self) -> Tensor:
        """Decoded."""
        grid = (self.scale, self.zero_point, *INT8)
        out: Tensor = Q.dequantize_per_tensor.default(self.codes, *grid)
        return out


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


@dataclass(frozen=True, slots=True)
class Moved:
    """A float tensor whose values were only moved, and how."""

    source: Tensor
    move: Callable[[Tensor], Tensor]

    def real(self) -> Tensor:
        """Moved."""
        return self.move(self.source)
