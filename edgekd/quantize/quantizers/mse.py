"""Symmetric integers with the scale of least squared error, searched again now and then."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from edgekd.core.config import Config
from edgekd.core.types import Affine
from edgekd.numerics.ranges import least_squares_scale
from edgekd.quantize.fake_quant import fake_quant, symmetric
from edgekd.quantize.grouping import aligned
from edgekd.quantize.quantizers._contract import QUANTIZERS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgekd.numerics.groups import Granularity


@QUANTIZERS.register
class Mse(Config):
    """Scale of least squared rounding error; outliers are cut where that pays.

    In training the scale stands still between searches, so that the loss does not jitter with
    the search; the scale and the count of steps are buffers, so a resumed training goes on with
    the same ones.

    Attributes:
        bits: Bits per weight.
        refresh_steps: Training steps between two searches.
    """

    bits: Annotated[int, Field(ge=2, le=8)] = 8
    refresh_steps: Annotated[int, Field(ge=1)] = 100

    def encode(self, weight: NDArray[np.float32], granularity: Granularity) -> Affine:
        """The encoding for a weight of shape (O, I, …)."""
        return symmetric(
            least_squares_scale(weight, granularity, bits=self.bits), granularity, self.bits
        )

    def fake_quant(self, weight: Tensor, granularity: Granularity) -> MseFakeQuant:
        """A module without parameters; its scale is a buffer."""
        return MseFakeQuant(self, weight, granularity)


class MseFakeQuant(nn.Module):
    """Fake-quant with the last searched scale; no gradient through the scale.

    Attributes:
        scale: In force; () or (O,).
        steps: Training forwards so far, ().
    """

    scale: Tensor
    steps: Tensor
    zero_point: Tensor

    def __init__(self, quantizer: Mse, weight: Tensor, granularity: Granularity) -> None:
        super().__init__()
        self.quantizer, self.granularity = quantizer, granularity
        self.high = (1 << (quantizer.bits - 1)) - 1
        self.register_buffer("scale", self._searched(weight))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("zero_point", torch.zeros(()), persistent=False)

    def forward(self, weight: Tensor) -> Tensor:
        """(O, I, …) -> same shape, on the grid."""
        if self.training:
            done = int(self.steps)
            if done and done % self.quantizer.refresh_steps == 0:
                self.scale.copy_(self._searched(weight))
            self.steps += 1
        # a copy: the backward pass needs the scale of this forward, not of a later search
        scale = aligned(self.scale.clone(), weight.shape, self.granularity)
        return fake_quant(weight, scale, self.zero_point, -self.high, self.high)

    def encoding(self, weight: Tensor) -> Affine:
        """The encoding that the last forward used, whatever the weight has become since."""
        scale = self.scale.numpy().copy()
        return symmetric(scale, self.granularity, self.quantizer.bits)

    def _searched(self, weight: Tensor) -> Tensor:
        values = weight.detach().contiguous().numpy()
        scale = least_squares_scale(values, self.granularity, bits=self.quantizer.bits)
        return torch.from_numpy(np.asarray(scale, np.float32))
