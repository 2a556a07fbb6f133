"""A codebook whose points are trained: differentiable quantization."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from edgekd.core.config import Config
from edgekd.core.types import Codebook
from edgekd.numerics.affine import SMALLEST_RANGE
from edgekd.numerics.points import group_span, quantile_points, scaled, uniform_points
from edgekd.quantize.grouping import aligned, to_rows
from edgekd.quantize.nearest import cells_of, nearest, on_points
from edgekd.quantize.quantizers._contract import QUANTIZERS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgekd.numerics.groups import Granularity


@QUANTIZERS.register
class Differentiable(Config):
    """Differentiable quantization (Polino et al. 2018, arXiv 1802.05668, section 4).

    One set of points a tensor, in the space where every group of weights spans 0 to 1.

    Attributes:
        bits: Bits per weight.
        points: How many, more than ``2**(bits - 1)``; null for ``2**bits``.
        weights: fixed trains the points alone, as in the paper: weight and bias of the layer stay
            as they are. joint trains the weights as well, straight through the rounding, and the
            groups' ranges follow them.
        start: Points at equal steps of probability, as in the paper, or uniform from 0 to 1.
        lr_scale: Factor on the learning rate of the points.
    """

    bits: Annotated[int, Field(ge=1, le=8)] = 4
    points: Annotated[int, Field(ge=2, le=256)] | None = None
    weights: Literal["fixed", "joint"] = "fixed"
    start: Literal["quantile", "uniform"] = "quantile"
    lr_scale: Annotated[float, Field(gt=0)] = 1.0

    @model_validator(mode="after")
    def _points_need_the_bits(self) -> Differentiable:
        if self.points is not None and bits_for(self.points) != self.bits:
            raise ValueError(
                f"points should lie in {(1 << (self.bits - 1)) + 1} to {1 << self.bits}"
                f" with bits: {self.bits}, got {self.points}"
            )
        return self

    @property
    def point_count(self) -> int:
        """How many points a tensor may have."""
        return 1 << self.bits if self.points is None else self.points

    def with_points(self, count: int) -> Differentiable:
        """The same with `count` points and the bits that they need."""
        fields = {**self.model_dump(), "points": count, "bits": bits_for(count)}
        return Differentiable.model_validate(fields)

    def encode(self, weight: NDArray[np.float32], granularity: Granularity) -> Codebook:
        """The encoding that training starts from, for a weight of shape (O, I, …)."""
        scale, offset = group_span(weight, granularity)
        place = quantile_points if self.start == "quantile" else uniform_points
        points = place(scaled(weight, scale, offset, granularity), self.point_count)
        return Codebook(self.bits, granularity, points, scale, offset)

    def fake_quant(self, weight: Tensor, granularity: Granularity) -> DifferentiableFakeQuant:
        """A module with one parameter per point."""
        return DifferentiableFakeQuant(self, weight, granularity)


def bits_for(points: int) -> int:
    """Bits of an index into `points` of them.

    >>> [bits_for(n) for n in (2, 3, 16, 17)]
    [1, 2, 4, 5]
    """
    return max(1, (points - 1).bit_length())


class DifferentiableFakeQuant(nn.Module):
    """Points are ``sort(start_points + shifts / s)`` for s of them.

    Sorted as they are read, never where they are kept: each number keeps its own momentum, and
    nothing but the numbers needs storing. A shift of 1 is the mean distance of two points, so
    that AdamW moves points by a share of it. The gradient of the paper, ``dL/dp_j = sum of
    scale * dL/dw_i``, grows with the number of weights; here it is multiplied by ``s² /
    (sqrt(n / s) * mean scale²)``, n weights, with which SGD moves a point about as far as the
    weights on it would move, and the paper's rates of 1e-6 to 1e-4 are not needed.

    Attributes:
        start_points: (s,).
        shifts: Trained, (s,); not decayed (fewer than two dimensions).
        trains_layer: False where weight and bias of the layer stay as they are.
    """

    start_points: Tensor

    def __init__(
        self, quantizer: Differentiable, weight: Tensor, granularity: Granularity
    ) -> None:
        super().__init__()
        self.bits, self.granularity = quantizer.bits, granularity
        self.trains_layer = quantizer.weights == "joint"
        start = quantizer.encode(weight.detach().contiguous().numpy(), granularity)
        count = start.centroids.size
        mean_square = max(float(np.square(start.scale).mean()), SMALLEST_RANGE)
        self.gradient_factor = count**2 / ((weight.numel() / count) ** 0.5 * mean_square)
        self.register_buffer("start_points", torch.from_numpy(start.centroids.copy()))
        self.shifts = nn.Parameter(torch.zeros_like(self.start_points))
        self.shifts.lr_scale = quantizer.lr_scale  # type: ignore[attr-defined]
        self._known: tuple[Tensor, Any, tuple[Tensor, ...]] | None = None

    def points(self) -> Tensor:
        """Those in force, ascending, (s,)."""
        moved = self.start_points + self.shifts / self.shifts.numel()
        ascending: Tensor = torch.sort(moved, stable=True).values
        return ascending

    def forward(self, weight: Tensor) -> Tensor:
        """(O, I, …) -> same shape, on the points."""
        points = self.points()
        with torch.no_grad():
            values, cells, scale, offset = self._scaled(weight)
            codes = nearest(values, points, cells)
        if points.requires_grad:
            points.register_hook(self._factored)  # type: ignore[no-untyped-call]
        followed = weight if self.trains_layer else weight.detach()
        return on_points(followed, points, codes, scale, offset)

    def encoding(self, weight: Tensor) -> Codebook:
        """The encoding in force."""
        scale, offset = group_span(weight.detach().contiguous().numpy(), self.granularity)
        points = self.points().detach().numpy().copy()
        return Codebook(self.bits, self.granularity, points, scale, offset)

    def _factored(self, grad: Tensor) -> Tensor:
        factored: Tensor = grad * self.gradient_factor
        return factored

    def _scaled(self, weight: Tensor) -> tuple[Tensor, ...]:
        """Scaled weights, their cells, scale and offset; kept while the weight stays the same."""
        state = (weight.data_ptr(), weight._version)  # one or the other changes with every write
        if self._known is not None and self._known[0] is weight and self._known[1] == state:
            return self._known[2]
        rows = to_rows(weight, self.granularity)
        low = rows.amin(1)
        span = (rows.amax(1) - low).clamp_(min=SMALLEST_RANGE)
        scale = aligned(span, weight.shape, self.granularity)
        offset = aligned(low, weight.shape, self.granularity)
        values = (weight - offset) / scale
        found = (values, cells_of(values), scale, offset)
        self._known = None if self.trains_layer else (weight, state, found)
        return found
