"""Symmetric integers whose scale is trained with the weights: learned step size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from edgekd.core.config import Config
from edgekd.core.types import Affine
from edgekd.numerics.affine import SMALLEST_RANGE, group_max_abs
from edgekd.numerics.ranges import least_squares_scale, mean_abs_scale
from edgekd.quantize.fake_quant import fake_quant, symmetric
from edgekd.quantize.grouping import aligned
from edgekd.quantize.quantizers._contract import QUANTIZERS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgekd.numerics.groups import Granularity


@QUANTIZERS.register
class Lsq(Config):
    """Learned step size (Esser et al. 2020, arXiv 1902.08153).

    Attributes:
        bits: Bits per weight.
        start: Where the scale starts: mse has the least squared error, which is also what
            post-training quantization is judged by; mean_abs is the paper's
            ``2 mean|w| / sqrt(largest code)``, about twice as wide at four bits.
        lr_scale: Factor on the learning rate of the scales.
    """

    bits: Annotated[int, Field(ge=2, le=8)] = 8
    start: Literal["mse", "mean_abs"] = "mse"
    lr_scale: Annotated[float, Field(gt=0)] = 1.0

    def encode(self, weight: NDArray[np.float32], granularity: Granularity) -> Affine:
        """The encoding that training starts from, for a weight of shape (O, I, …)."""
        search = least_squares_scale if self.start == "mse" else mean_abs_scale
        scale = search(weight, granularity, bits=self.bits)
        # an empty channel may come alive in training: it starts with the others' step
        empty = group_max_abs(weight, granularity) <= SMALLEST_RANGE
        if empty.any() and not empty.all():
            scale = np.where(empty, scale[~empty].mean(), scale).astype(np.float32)
        return symmetric(scale, granularity, self.bits)

    def fake_quant(self, weight: Tensor, granularity: Granularity) -> LsqFakeQuant:
        """A module with one parameter per scale."""
        return LsqFakeQuant(self, weight, granularity)


class LsqFakeQuant(nn.Module):
    """The scale is ``start_scale * exp(log_gain)``, positive whatever the optimizer does.

    The gradient of `log_gain` is multiplied by ``1 / (sqrt(n * largest code) * s²)``, n weights
    per scale, s the root mean square of the layer's first scales: for small steps SGD then moves
    a scale as it does in the paper (section 2.2, gradient factor ``1 / sqrt(n * largest code)``
    on the scale itself), and AdamW, which is blind to such factors, moves it by a share of itself
    instead of by an amount that may exceed it. One s for the layer, so that the step of a nearly
    empty channel cannot leap.

    Attributes:
        start_scale: One per group.
        log_gain: Trained, same shape; not decayed (fewer than two dimensions).
    """

    start_scale: Tensor
    zero_point: Tensor

    def __init__(self, quantizer: Lsq, weight: Tensor, granularity: Granularity) -> None:
        super().__init__()
        self.bits, self.granularity = quantizer.bits, granularity
        self.high = (1 << (quantizer.bits - 1)) - 1
        scale = quantizer.encode(weight.detach().contiguous().numpy(), granularity).scale
        members = weight.numel() // scale.size
        mean_square = float(np.square(scale.astype(np.float64)).mean())
        self.gradient_factor = 1.0 / (float(np.sqrt(members * self.high)) * mean_square)
        self.register_buffer("start_scale", torch.from_numpy(scale.copy()))
        self.register_buffer("zero_point", torch.zeros(()), persistent=False)
        self.log_gain = nn.Parameter(torch.zeros_like(self.start_scale))
        self.log_gain.lr_scale = quantizer.lr_scale  # type: ignore[attr-defined]

    def step_size(self) -> Tensor:
        """The scale in force, one per group."""
        return self.start_scale * torch.exp(self.log_gain)

    def forward(self, weight: Tensor) -> Tensor:
        """(O, I, …) -> same shape, on the grid."""
        scale = self.step_size()
        if scale.requires_grad:
            scale.register_hook(self._scaled)  # type: ignore[no-untyped-call]
        steps = aligned(scale, weight.shape, self.granularity)
        return fake_quant(weight, steps, self.zero_point, -self.high, self.high)

    def _scaled(self, grad: Tensor) -> Tensor:
        return grad * self.gradient_factor

    def encoding(self, weight: Tensor) -> Affine:
        """The encoding in force."""
        scale = self.step_size().detach().numpy().copy()
        return symmetric(scale, self.granularity, self.bits)
