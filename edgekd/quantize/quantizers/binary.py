"""Weights of -1 and 1 times a scale."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from edgekd.core.config import Config
from edgekd.core.types import Codebook
from edgekd.numerics.affine import SMALLEST_RANGE
from edgekd.numerics.thresholds import binary_scale
from edgekd.quantize.grouping import aligned, summed
from edgekd.quantize.quantizers._contract import QUANTIZERS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgekd.numerics.groups import Granularity

_POINTS = np.array([-1, 1], np.float32)


@QUANTIZERS.register
class Binary(Config):
    """Binary weights scaled by their mean magnitude (Rastegari et al. 2016, arXiv 1603.05279).

    A learned scale is what lsq does with one bit and levels: mid_rise.

    Attributes:
        bits: One.
        cut: Weights beyond ±cut get no gradient, so that they do not drift away from 0, where a
            sign could still change.
    """

    bits: Literal[1] = 1
    cut: Annotated[float, Field(gt=0)] = 1.0

    def encode(self, weight: NDArray[np.float32], granularity: Granularity) -> Codebook:
        """The encoding for a weight of shape (O, I, …)."""
        return Codebook(1, granularity, _POINTS, binary_scale(weight, granularity))

    def fake_quant(self, weight: Tensor, granularity: Granularity) -> BinaryFakeQuant:
        """A module without parameters: the scale follows the weight."""
        return BinaryFakeQuant(self.cut, granularity)


class BinaryFakeQuant(nn.Module):
    """Scale from the weight of the moment; no gradient through the scale."""

    def __init__(self, cut: float, granularity: Granularity) -> None:
        super().__init__()
        self.cut, self.granularity = cut, granularity

    def forward(self, weight: Tensor) -> Tensor:
        """(O, I, …) -> same shape, on the grid."""
        with torch.no_grad():
            steps = aligned(self._scale(weight), weight.shape, self.granularity)
            signed = torch.where(weight > 0, steps, -steps)
        passed = weight.clamp(-self.cut, self.cut)  # the gradient's way; it adds 0 to the value
        return signed + (passed - passed.detach())

    def encoding(self, weight: Tensor) -> Codebook:
        """The encoding in force."""
        return Codebook(1, self.granularity, _POINTS, self._scale(weight).numpy())

    @torch.no_grad()
    def _scale(self, weight: Tensor) -> Tensor:
        sizes = weight.double().abs()
        means = summed(sizes, self.granularity) / summed(torch.ones_like(sizes), self.granularity)
        return means.clamp(min=SMALLEST_RANGE).float()
