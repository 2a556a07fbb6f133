"""Integers whose scale, and offset if wanted, is trained with the weights: learned step size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field, ValidationInfo, field_validator

from edgekd.core.config import Config
from edgekd.core.types import Affine
from edgekd.numerics.affine import SMALLEST_RANGE
from edgekd.numerics.groups import to_rows
from edgekd.numerics.ranges import (
    Levels,
    least_squares_line,
    least_squares_scale,
    mean_abs_scale,
)
from edgekd.quantize.learned_scale import LearnedScale, like_the_others
from edgekd.quantize.quantizers._contract import QUANTIZERS

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from edgekd.numerics.groups import Granularity


@QUANTIZERS.register
class Lsq(Config):
    """Learned step size (Esser et al. 2020, arXiv 1902.08153), and LSQ+'s learned offset.

    Attributes:
        bits: Bits per weight; one bit needs mid_rise or offset.
        levels: Which multiples of the scale there are. narrow: symmetric around 0, one code
            unused (-1, 0, 1 at two bits), the form that every integer kernel takes. full: every
            two's complement code (-2, -1, 0, 1). mid_rise: every code, symmetric, no zero (-1.5,
            -0.5, 0.5, 1.5). offset: every code, counted from a learned offset (Bhalgat et al.
            2020, arXiv 2004.09576, eq. 3).
        start: Where the scale starts: mse has the least squared error, which is also what
            post-training quantization is judged by; mean_abs is the paper's
            ``2 mean|w| / sqrt(largest level)``, about twice as wide at four bits.
        lr_scale: Factor on the learning rate of scales and offsets.
    """

    bits: Annotated[int, Field(ge=1, le=8)] = 8
    levels: Annotated[
        Literal["narrow", "full", "mid_rise", "offset"], Field(validate_default=True)
    ] = "narrow"
    start: Literal["mse", "mean_abs"] = "mse"
    lr_scale: Annotated[float, Field(gt=0)] = 1.0

    @field_validator("levels")
    @classmethod
    def _more_than_zero(cls, levels: str, info: ValidationInfo) -> str:
        if info.data.get("bits") == 1 and levels in ("narrow", "full"):
            raise ValueError(f"one bit needs mid_rise or offset, got {levels!r}")
        return levels

    @field_validator("start")
    @classmethod
    def _known_for_levels(cls, start: str, info: ValidationInfo) -> str:
        if info.data.get("levels") == "offset" and start != "mse":
            raise ValueError(f"levels: offset can only start at mse, got {start!r}")
        return start

    def encode(self, weight: NDArray[np.float32], granularity: Granularity) -> Affine:
        """The encoding that training starts from, for a weight of shape (O, I, …)."""
        rows = to_rows(weight, granularity)
        if self.levels == "offset":
            scale, offset = least_squares_line(weight, granularity, bits=self.bits)
            scale = like_the_others(scale, np.ptp(rows, axis=1) <= SMALLEST_RANGE)
            zeros = np.zeros(scale.shape, np.int32)
            return Affine(self.bits, False, granularity, scale, zeros, offset=offset)
        search = least_squares_scale if self.start == "mse" else mean_abs_scale
        scale = search(weight, granularity, bits=self.bits, kind=self.levels)
        if self.levels != "mid_rise":  # without a zero, an empty group stays next to nothing
            scale = like_the_others(scale, np.abs(rows).max(axis=1) <= SMALLEST_RANGE)
        return Levels.of(self.levels, self.bits).affine(scale, granularity, self.bits)

    def fake_quant(self, weight: Tensor, granularity: Granularity) -> LearnedScale:
        """A module with one parameter per scale, and one per offset."""
        start = self.encode(weight.detach().contiguous().numpy(), granularity)
        offset = None
        if self.levels != "offset":
            offset = Levels.of(self.levels, self.bits).shift
        return LearnedScale(start, weight.numel(), lr_scale=self.lr_scale, offset=offset)
