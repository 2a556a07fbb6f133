"""Symmetric integers scaled by the largest magnitude of each channel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from edgekd.core.config import Config
from edgekd.core.errors import UnsupportedError
from edgekd.core.types import Affine, PerBlock, PerChannel, PerTensor
from edgekd.numerics.affine import SMALLEST_RANGE, channel_max_abs, symmetric_scale
from edgekd.quantize.fake_quant import fake_quant, per_channel_shape
from edgekd.quantize.quantizers._contract import QUANTIZERS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Granularity = PerTensor | PerChannel | PerBlock


@QUANTIZERS.register
class MinMax(Config):
    """Scale = largest |weight| / largest code, followed all through training.

    Attributes:
        bits: Bits per weight.
    """

    bits: Annotated[int, Field(ge=2, le=8)] = 8

    def encode(self, weight: NDArray[np.float32], granularity: Granularity) -> Affine:
        """The encoding for a weight of shape (O, I, …)."""
        if isinstance(granularity, PerBlock):
            raise UnsupportedError(
                "The quantizer 'minmax' has no blocks.", expected="per_tensor or per_channel"
            )
        scale = symmetric_scale(channel_max_abs(weight, granularity), bits=self.bits)
        zero_point = np.zeros(scale.shape, np.int32)
        return Affine(self.bits, True, granularity, scale, zero_point, narrow=True)

    def fake_quant(self, weight: Tensor, granularity: Granularity) -> MinMaxFakeQuant:
        """A module without parameters: the scale follows the weight."""
        self.encode(weight.detach().numpy(), granularity)  # refuses what it cannot do, now
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
            if isinstance(self.granularity, PerTensor):
                max_abs = weight.abs().max()
            else:
                max_abs = weight.abs().flatten(1).amax(1).view(per_channel_shape(weight))
            safe = torch.where(max_abs > SMALLEST_RANGE, max_abs, float(self.high))
            scale = safe / self.high
        return fake_quant(weight, scale, self.zero_point, -self.high, self.high)

    def encoding(self, weight: Tensor) -> Affine:
        """The encoding in force."""
        return self.quantizer.encode(weight.detach().numpy(), self.granularity)
