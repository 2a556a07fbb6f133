"""What flows between the nodes of an ONNX file that runs in torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.ao.quantization.fx import _decomposed  # noqa: F401  # defines quantized_decomposed

if TYPE_CHECKING:
    from collections.abc import Callable

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
class Moved:
    """A float tensor whose values were only moved, and how."""

    source: Tensor
    move: Callable[[Tensor], Tensor]

    def real(self) -> Tensor:
        """Moved."""
        return self.move(self.source)
