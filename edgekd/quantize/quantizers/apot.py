"""Points that are sums of a few powers of two, on a learned clipping range."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from edgekd.core.config import Config
from edgekd.core.types import Codebook
from edgekd.numerics.affine import SMALLEST_RANGE
from edgekd.numerics.groups import to_rows
from edgekd.numerics.powers import additive_powers, least_squares_clip
from edgekd.quantize.learned_scale import LearnedScale, like_the_others
from edgekd.quantize.quantizers._contract import QUANTIZERS

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from edgekd.numerics.groups import Granularity


@QUANTIZERS.register
class Apot(Config):
    """Additive powers of two (Li et al. 2020, arXiv 1909.13144).

    One bit is the sign, the others choose powers of two that add up; the points are dense near 0
    as weights are. Two bits are -1, 0, 1; three are single powers. The paper shows 2 to 5 bits;
    the same rule gives points up to 8, where the gaps near ±1 are far wider than those of even
    points. The paper scales weights to mean 0 and deviation 1 before rounding; here the clipping
    range starts at the least squared error instead, and the weights stay as they are.

    Attributes:
        bits: Bits per weight.
        lr_scale: Factor on the learning rate of the clipping ranges.
    """

    bits: Annotated[int, Field(ge=2, le=8)] = 4
    lr_scale: Annotated[float, Field(gt=0)] = 1.0

    def encode(self, weight: NDArray[np.float32], granularity: Granularity) -> Codebook:
        """The encoding that training starts from, for a weight of shape (O, I, …)."""
        points = additive_powers(self.bits)
        clip = least_squares_clip(weight, granularity, points)
        empty = np.abs(to_rows(weight, granularity)).max(axis=1) <= SMALLEST_RANGE
        return Codebook(self.bits, granularity, points, like_the_others(clip, empty))

    def fake_quant(self, weight: Tensor, granularity: Granularity) -> LearnedScale:
        """A module with one parameter per clipping range."""
        start = self.encode(weight.detach().contiguous().numpy(), granularity)
        return LearnedScale(start, weight.numel(), lr_scale=self.lr_scale)
