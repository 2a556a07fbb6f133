"""Weights of -1, 0 and 1 times a scale."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from edgekd.core.config import Config
from edgekd.core.types import Affine
from edgekd.numerics.affine import SMALLEST_RANGE
from edgekd.numerics.thresholds import TERNARY_THRESHOLD, ternary_scale
from edgekd.quantize.fake_quant import fake_quant, symmetric
from edgekd.quantize.grouping import aligned, summed
from edgekd.quantize.learned_scale import LearnedScale
from edgekd.quantize.quantizers._contract import QUANTIZERS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgekd.numerics.groups import Granularity


@QUANTIZERS.register
class Ternary(Config):
    """Ternary weight networks (Li & Liu 2016, arXiv 1605.04711), two bits stored.

    The scale is the mean magnitude of the weights above 0.7 times the mean magnitude. A weight
    takes the nearest of the three points, so it becomes 0 below half the scale: on the weights
    the rule was made for the two thresholds are within a few percent, and the nearest point
    never errs more.

    Attributes:
        bits: Two.
        scale: mean_of_kept follows the weights, learned starts there and is trained.
        lr_scale: Factor on the learning rate of learned scales.
    """

    bits: Literal[2] = 2
    scale: Literal["mean_of_kept", "learned"] = "mean_of_kept"
    lr_scale: Annotated[float, Field(gt=0)] = 1.0

    def encode(self, weight: NDArray[np.float32], granularity: Granularity) -> Affine:
        """The encoding for a weight of shape (O, I, …)."""
        return symmetric(ternary_scale(weight, granularity), granularity, self.bits)

    def fake_quant(
        self, weight: Tensor, granularity: Granularity
    ) -> TernaryFakeQuant | LearnedScale:
        """A module that follows the weight, or trains one parameter per scale."""
        if self.scale == "mean_of_kept":
            return TernaryFakeQuant(granularity)
        start = self.encode(weight.detach().contiguous().numpy(), granularity)
        return LearnedScale(start, weight.numel(), lr_scale=self.lr_scale)


class TernaryFakeQuant(nn.Module):
    """Scale from the weight of the moment; no gradient through the scale."""

    def __init__(self, granularity: Granularity) -> None:
        super().__init__()
        self.granularity = granularity
        self.register_buffer("zero_point", torch.zeros(()), persistent=False)

    zero_point: Tensor

    def forward(self, weight: Tensor) -> Tensor:
        """(O, I, …) -> same shape, on the grid."""
        steps = aligned(self._scale(weight), weight.shape, self.granularity)
        return fake_quant(weight, steps, self.zero_point, -1, 1)

    def encoding(self, weight: Tensor) -> Affine:
        """The encoding in force."""
        return symmetric(self._scale(weight).numpy(), self.granularity, 2)

    @torch.no_grad()
    def _scale(self, weight: Tensor) -> Tensor:
        sizes, same = weight.double().abs(), self.granularity
        means = summed(sizes, same) / summed(torch.ones_like(sizes), same)
        kept = (sizes > aligned(TERNARY_THRESHOLD * means, weight.shape, same)).double()
        total, count = summed(sizes * kept, same), summed(kept, same)
        found: Tensor = torch.where(total > SMALLEST_RANGE, total / count.clamp(min=1), 1.0)
        return found.float()
