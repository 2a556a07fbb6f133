"""A weight's grid whose scale, and offset if wanted, is trained with the weights."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from edgekd.core.types import Affine, Encoding
from edgekd.numerics.affine import SMALLEST_RANGE
from edgekd.quantize.fake_codebook import fake_codebook
from edgekd.quantize.fake_quant import fake_quant
from edgekd.quantize.grouping import aligned

if TYPE_CHECKING:
    from numpy.typing import NDArray


class LearnedScale(nn.Module):
    """The scale is ``start_scale * exp(log_gain)``, positive whatever the optimizer does.

    The gradient of `log_gain` is multiplied by ``1 / (sqrt(n * largest level) * s²)``, n weights
    per scale, s the root mean square of the layer's first scales: for small steps SGD then moves
    a scale as it does in the paper on learned step sizes (Esser et al. 2020, section 2.2,
    gradient factor ``1 / sqrt(n * largest code)`` on the scale itself), and AdamW, which is blind
    to such factors, moves it by a share of itself instead of by an amount that may exceed it. One
    s for the layer, so that the step of a nearly empty channel cannot leap. A learned offset is
    ``start_offset + start_scale * offset_steps`` with the same factor, so all of this holds of it.

    Args:
        start: The encoding that training starts from.
        weights: How many the layer has.
        lr_scale: Factor on the learning rate of what is learned here.
        offset: The start's offset is learned, or stays that share of the scale; 0 for none.

    Attributes:
        start_scale: One per group.
        log_gain: Trained, same shape; not decayed (fewer than two dimensions).
        start_offset: One per group; only where the offset is learned.
        offset_steps: Trained, same shape; None where there is no offset to learn.
    """

    start_scale: Tensor
    start_offset: Tensor
    zero_point: Tensor
    points: Tensor

    def __init__(
        self, start: Encoding, weights: int, *, lr_scale: float = 1.0, offset: float | None = 0.0
    ) -> None:
        super().__init__()
        self.start, self.offset_share = start, offset
        self.gradient_factor = _gradient_factor(start, weights)
        self.register_buffer("start_scale", torch.from_numpy(start.scale.copy()))
        self.log_gain = nn.Parameter(torch.zeros_like(self.start_scale))
        self.offset_steps = None
        if offset is None:
            assert start.offset is not None
            self.register_buffer("start_offset", torch.from_numpy(start.offset.copy()))
            self.offset_steps = nn.Parameter(torch.zeros_like(self.start_scale))
        points = (
            torch.zeros(()) if isinstance(start, Affine) else torch.from_numpy(start.centroids)
        )
        self.register_buffer("points", points, persistent=False)
        self.register_buffer("zero_point", torch.zeros(()), persistent=False)
        for parameter in self.parameters():
            parameter.lr_scale = lr_scale  # type: ignore[attr-defined]

    def step_size(self) -> Tensor:
        """The scale in force, one per group."""
        return self.start_scale * torch.exp(self.log_gain)

    def offset(self, scale: Tensor) -> Tensor | None:
        """The offset in force, one per group; None for 0."""
        if self.offset_steps is not None:
            return self.start_offset + self.start_scale * self.offset_steps
        return scale * self.offset_share if self.offset_share else None

    def forward(self, weight: Tensor) -> Tensor:
        """(O, I, …) -> same shape, on the grid."""
        scale = self.step_size()
        offset = self.offset(scale)
        for learned in (scale, offset if self.offset_steps is not None else None):
            if learned is not None and learned.requires_grad:
                learned.register_hook(self._scaled)  # type: ignore[no-untyped-call]
        steps = aligned(scale, weight.shape, self.start.granularity)
        if offset is None:
            return self._rounded(weight, steps)
        ground = aligned(offset, weight.shape, self.start.granularity)
        return self._rounded(weight - ground, steps) + ground

    def encoding(self, weight: Tensor) -> Encoding:
        """The encoding in force."""
        with torch.no_grad():
            scale = self.step_size()
            offset = self.offset(scale)
        stored = None if offset is None else offset.numpy().copy()
        return replace(self.start, scale=scale.numpy().copy(), offset=stored)

    def _rounded(self, value: Tensor, scale: Tensor) -> Tensor:
        if isinstance(self.start, Affine):
            low, high = self.start.code_min, self.start.code_max
            return fake_quant(value, scale, self.zero_point, low, high)
        return fake_codebook(value, scale, self.points)

    def _scaled(self, grad: Tensor) -> Tensor:
        return grad * self.gradient_factor


def like_the_others(scale: NDArray[np.float32], empty: NDArray[np.bool_]) -> NDArray[np.float32]:
    """An empty group may come alive in training: it starts with the others' mean scale.

    Args:
        scale: As `groups.scale_shape` says.
        empty: (groups,).
    """
    empty = empty.reshape(scale.shape)
    if not empty.any() or empty.all():
        return scale
    filled: NDArray[np.float32] = np.where(empty, scale[~empty].mean(), scale).astype(np.float32)
    return filled


def _gradient_factor(start: Encoding, weights: int) -> float:
    used = start.scale[start.scale > SMALLEST_RANGE].astype(np.float64)
    if used.size == 0:
        return 0.0
    if isinstance(start, Affine):
        largest = (start.code_max - start.code_min) / 2
    else:
        largest = float(np.abs(start.centroids).max())
    members = max(weights // start.scale.size, 1)
    return 1.0 / (float(np.sqrt(members * largest)) * float(np.square(used).mean()))
