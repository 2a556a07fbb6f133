"""Integers whose scale, and offset if wanted, is trained with the weights: learned step size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import torch
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor, nn

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
from edgekd.quantize.fake_quant import fake_quant
from edgekd.quantize.grouping import aligned
from edgekd.quantize.quantizers._contract import QUANTIZERS

if TYPE_CHECKING:
    from numpy.typing import NDArray

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

    def grid(self) -> Levels:
        """The levels, in units of the scale; without the learned offset."""
        if self.levels == "offset":
            return Levels(0, (1 << self.bits) - 1)
        return Levels.of(self.levels, self.bits)

    def encode(self, weight: NDArray[np.float32], granularity: Granularity) -> Affine:
        """The encoding that training starts from, for a weight of shape (O, I, …)."""
        rows = to_rows(weight, granularity)
        if self.levels == "offset":
            scale, offset = least_squares_line(weight, granularity, bits=self.bits)
            still = np.ptp(rows, axis=1) <= SMALLEST_RANGE
            return self.stored(_like_the_others(scale, still), offset, granularity)
        search = least_squares_scale if self.start == "mse" else mean_abs_scale
        scale = search(weight, granularity, bits=self.bits, kind=self.levels)
        if self.levels != "mid_rise":  # without a zero, an empty group stays next to nothing
            scale = _like_the_others(scale, np.abs(rows).max(axis=1) <= SMALLEST_RANGE)
        return self.stored(scale, None, granularity)

    def stored(
        self,
        scale: NDArray[np.float32],
        offset: NDArray[np.float32] | None,
        granularity: Granularity,
    ) -> Affine:
        """The encoding with a scale, and an offset if it is learned."""
        if offset is None:
            return self.grid().affine(scale, granularity, self.bits)
        zeros = np.zeros(scale.shape, np.int32)
        return Affine(self.bits, False, granularity, scale, zeros, offset=offset)

    def fake_quant(self, weight: Tensor, granularity: Granularity) -> LsqFakeQuant:
        """A module with one parameter per scale, and one per offset."""
        return LsqFakeQuant(self, weight, granularity)


def _like_the_others(scale: NDArray[np.float32], empty: NDArray[np.bool_]) -> NDArray[np.float32]:
    """An empty group may come alive in training: it starts with the others' mean step."""
    empty = empty.reshape(scale.shape)
    if not empty.any() or empty.all():
        return scale
    filled: NDArray[np.float32] = np.where(empty, scale[~empty].mean(), scale).astype(np.float32)
    return filled


class LsqFakeQuant(nn.Module):
    """The scale is ``start_scale * exp(log_gain)``, positive whatever the optimizer does.

    The gradient of `log_gain` is multiplied by ``1 / (sqrt(n * largest level) * s²)``, n weights
    per scale, s the root mean square of the layer's first scales: for small steps SGD then moves
    a scale as it does in the paper (section 2.2, gradient factor ``1 / sqrt(n * largest code)``
    on the scale itself), and AdamW, which is blind to such factors, moves it by a share of itself
    instead of by an amount that may exceed it. One s for the layer, so that the step of a nearly
    empty channel cannot leap. A learned offset is ``start_offset + start_scale * offset_steps``
    with the same factor, so all of this holds of it as well.

    Attributes:
        start_scale: One per group.
        log_gain: Trained, same shape; not decayed (fewer than two dimensions).
        start_offset: One per group; only where the offset is learned.
        offset_steps: Trained, same shape; None where there is no offset to learn.
    """

    start_scale: Tensor
    start_offset: Tensor
    zero_point: Tensor

    def __init__(self, quantizer: Lsq, weight: Tensor, granularity: Granularity) -> None:
        super().__init__()
        self.quantizer, self.granularity = quantizer, granularity
        self.levels = quantizer.grid()
        first = quantizer.encode(weight.detach().contiguous().numpy(), granularity)
        self.gradient_factor = self._factor(first.scale, weight.numel())
        self.register_buffer("start_scale", torch.from_numpy(first.scale.copy()))
        self.register_buffer("zero_point", torch.zeros(()), persistent=False)
        self.log_gain = nn.Parameter(torch.zeros_like(self.start_scale))
        self.offset_steps = None
        if quantizer.levels == "offset":
            assert first.offset is not None
            self.register_buffer("start_offset", torch.from_numpy(first.offset.copy()))
            self.offset_steps = nn.Parameter(torch.zeros_like(self.start_scale))
        for parameter in self.parameters():
            parameter.lr_scale = quantizer.lr_scale  # type: ignore[attr-defined]

    def step_size(self) -> Tensor:
        """The scale in force, one per group."""
        return self.start_scale * torch.exp(self.log_gain)

    def offset(self, scale: Tensor) -> Tensor | None:
        """The offset in force, one per group; None for 0."""
        if self.offset_steps is not None:
            return self.start_offset + self.start_scale * self.offset_steps
        return scale * self.levels.shift if self.levels.shift else None

    def forward(self, weight: Tensor) -> Tensor:
        """(O, I, …) -> same shape, on the grid."""
        scale = self.step_size()
        offset = self.offset(scale)
        for learned in (scale, offset if self.offset_steps is not None else None):
            if learned is not None and learned.requires_grad:
                learned.register_hook(self._scaled)  # type: ignore[no-untyped-call]
        steps = aligned(scale, weight.shape, self.granularity)
        low, high = self.levels.low, self.levels.high
        if offset is None:
            return fake_quant(weight, steps, self.zero_point, low, high)
        ground = aligned(offset, weight.shape, self.granularity)
        return fake_quant(weight - ground, steps, self.zero_point, low, high) + ground

    def encoding(self, weight: Tensor) -> Affine:
        """The encoding in force."""
        with torch.no_grad():
            scale = self.step_size()
            offset = self.offset(scale) if self.offset_steps is not None else None
        stored = None if offset is None else offset.numpy().copy()
        return self.quantizer.stored(scale.numpy().copy(), stored, self.granularity)

    def _factor(self, scale: NDArray[np.float32], weights: int) -> float:
        used = scale[scale > SMALLEST_RANGE].astype(np.float64)
        if used.size == 0:
            return 0.0
        top = self.levels.top if self.levels.low else self.levels.high / 2
        members = max(weights // scale.size, 1)
        return 1.0 / (float(np.sqrt(members * top)) * float(np.square(used).mean()))

    def _scaled(self, grad: Tensor) -> Tensor:
        return grad * self.gradient_factor
