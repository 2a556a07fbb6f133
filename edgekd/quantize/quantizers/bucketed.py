"""Even points between the extremes of each group: the paper on quantized distillation."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from edgekd.core.config import Config
from edgekd.core.types import Affine
from edgekd.numerics.affine import SMALLEST_RANGE
from edgekd.numerics.groups import scale_shape
from edgekd.numerics.groups import to_rows as numpy_rows
from edgekd.numerics.ranges import min_max_line
from edgekd.quantize.fake_quant import fake_quant
from edgekd.quantize.grouping import from_rows, to_rows
from edgekd.quantize.quantizers._contract import QUANTIZERS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgekd.numerics.groups import Granularity


@QUANTIZERS.register
class Bucketed(Config):
    """Linear scaling by bucket (Polino et al. 2018, arXiv 1802.05668, sections 2.1 and 2.2).

    Points lie at ``low + k * (high - low) / (2**bits - 1)``, low and high being a group's
    extremes of the moment; the paper's groups are blocks of 256. A constant group stays as it is.

    Attributes:
        bits: Bits per weight.
        gradient: straight_through hands the gradient on as it is, exact adds what reaches the
            extremes of a group through its scale.
        rounding: nearest, or in training stochastic: up with the probability that leaves the mean
            unchanged. What is stored is always the nearest.
    """

    bits: Annotated[int, Field(ge=1, le=8)] = 8
    gradient: Literal["straight_through", "exact"] = "straight_through"
    rounding: Literal["nearest", "stochastic"] = "nearest"

    def encode(self, weight: NDArray[np.float32], granularity: Granularity) -> Affine:
        """The encoding for a weight of shape (O, I, …)."""
        scale, low, _ = min_max_line(numpy_rows(weight, granularity), bits=self.bits)
        shape = scale_shape(weight.shape, granularity)
        zero = np.zeros(shape, np.int32)
        return Affine(
            self.bits,
            signed=False,
            granularity=granularity,
            scale=scale.reshape(shape),
            zero_point=zero,
            offset=low.reshape(shape),
        )

    def fake_quant(self, weight: Tensor, granularity: Granularity) -> BucketedFakeQuant:
        """A module without parameters: the points follow the weight."""
        return BucketedFakeQuant(self, weight, granularity)


class BucketedFakeQuant(nn.Module):
    """Points from the weight of the moment.

    Attributes:
        draws: Stochastic forwards so far, (); with `seed` it says what the next one draws, so
            that a resumed training goes on with the same noise.
        seed: Of this layer's noise, (); from the weight it started with.
    """

    draws: Tensor
    seed: Tensor
    zero_point: Tensor

    def __init__(self, quantizer: Bucketed, weight: Tensor, granularity: Granularity) -> None:
        super().__init__()
        self.quantizer, self.granularity = quantizer, granularity
        self.high = (1 << quantizer.bits) - 1
        self.register_buffer("zero_point", torch.zeros(()), persistent=False)
        if quantizer.rounding == "stochastic":
            seed = zlib.crc32(weight.detach().contiguous().numpy().tobytes())
            self.register_buffer("seed", torch.tensor(seed))
            self.register_buffer("draws", torch.zeros((), dtype=torch.int64))

    def forward(self, weight: Tensor) -> Tensor:
        """(O, I, …) -> same shape, on the grid."""
        rows = to_rows(weight, self.granularity)
        with torch.set_grad_enabled(
            torch.is_grad_enabled() and self.quantizer.gradient == "exact"
        ):
            low = rows.amin(1, keepdim=True)
            width = rows.amax(1, keepdim=True) - low
            scale = torch.where(width > SMALLEST_RANGE, width / self.high, 1.0)
        above = rows - low
        if self.training and self.quantizer.rounding == "stochastic":
            # the nearest point to a value with even noise of one step is the stochastic rounding
            above = above + self._noise(rows) * scale
        out = fake_quant(above, scale, self.zero_point, 0, self.high) + low
        return from_rows(out, weight.shape, self.granularity)

    def encoding(self, weight: Tensor) -> Affine:
        """The encoding in force."""
        return self.quantizer.encode(weight.detach().numpy(), self.granularity)

    def _noise(self, rows: Tensor) -> Tensor:
        """Even between -1/2 and 1/2, shape of `rows`."""
        generator = torch.Generator().manual_seed(int(self.seed) + int(self.draws))
        self.draws += 1
        return torch.rand(rows.shape, generator=generator).sub_(0.5)
