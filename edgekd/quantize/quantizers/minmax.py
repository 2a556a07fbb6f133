"""Symmetric integers scaled by the largest magnitude of each channel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from edgekd.core.config import Config
from edgekd.core.types import Affine
from edgekd.numerics.affine import SMALLEST_RANGE, group_max_abs, symmetric_scale
from edgekd.quantize.fake_quant import fake_quant, symmetric
from edgekd.quantize.grouping import aligned, to_rows
from edgekd.quantize.quantizers._contract import QUANTIZERS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgekd.numerics.groups import Granularity


@QUANTIZERS.register
class MinMax(Config):
    """Scale = largest |weight| / largest code, followed all through training.

    Attributes:
        bits: Bits per weight.
    """

    bits: Annotated[int, Field(ge=2, le=8)] = 8

    def encode(self, weight: NDArray[np.float32], granularity: Granularity) -> Affine:
        """The encoding for a weight of shape (O, I, …)."""
        scale = symmetric_scale(group_max_abs(weight, granularity), bits=self.bits)
        return symmetric(scale, granularity, self.bits)

    def fake_quant(self, weight: Tensor, granularity: Granularity) -> MinMaxFakeQuant:
        """A module without parameters: the scale follows the weight."""
        return MinMaxFakeQuant(self, granularity)


class MinMaxFakeQuant(nn.Module):
    """Scale from the weight of the moment; no gradient through the scale."""

    def __init__(self, quantizer: MinMax, granularity: Granularity) -> None:
        super().__init__()
        self.quantizer, self.granularity = quantizer, granularity
        self.high = (1 << (quantizer.bits - 1)) - 1
        self.register_buffer("zero_point", torch.zeros(()), persistent=False)

    zero_point: Tensor

    def forward(self, weight: Tensor) -> Tensor:
        """(O, I, …) -> same shape, on the grid."""
        with torch.no_grad():
            max_abs = to_rows(weight, self.granularity).abs().amax(1)
            safe = torch.where(max_abs > SMALLEST_RANGE, max_abs, float(self.high))
            scale = safe / self.high
            steps = aligned(scale, weight.shape, self.granularity)
        return fake_quant(weight, steps, self.zero_point, -self.high, self.high)

    def encoding(self, weight: Tensor) -> Affine:
        """The encoding in force."""
        return self.quantizer.encode(weight.detach().numpy(), self.granularity)
