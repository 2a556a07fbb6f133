"""Weights on the nearest point of a codebook, in torch, with a gradient for each point.

`numerics.codebook` and `numerics.points` are the numpy form.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

#: cells of the table in which the nearest point is looked up
_CELLS = 4096
#: so many comparisons a weight cost as much as a binary search
_MOST_COMPARED = 8


def nearest(scaled: Tensor, points: Tensor, cells: Tensor | None = None) -> Tensor:
    """Index of the nearest point, int32, flat; half-way goes to the lower one.

    A table gives how many midpoints lie in cells below a value's own, those in its own cell are
    compared one by one: the result is that of a binary search, in a tenth of its time.

    Args:
        scaled: Values in [0, 1], any shape.
        points: Ascending, (s,).
        cells: ``cells_of(scaled)``, where it is known.
    """
    middle = 0.5 * (points[1:] + points[:-1])
    inside = torch.bincount(cells_of(middle), minlength=_CELLS)
    compared = int(inside.max())
    flat = scaled.reshape(-1)
    if compared > _MOST_COMPARED:
        return torch.bucketize(flat, middle, out_int32=True)
    below = (inside.cumsum(0) - inside).to(torch.int32)
    codes = below.index_select(0, cells_of(flat) if cells is None else cells)
    end = torch.cat([middle, middle.new_full((1,), torch.inf)])
    for _ in range(compared):
        codes += flat > end.index_select(0, codes)
    return codes


def cells_of(scaled: Tensor) -> Tensor:
    """The cell of the table that each value falls in, int32, flat; never falls as values rise."""
    return scaled.reshape(-1).mul(_CELLS).clamp_(0, _CELLS - 1).to(torch.int32)


class _OnPoints(torch.autograd.Function):
    """``points[codes] * scale + offset``; straight through to the weight."""

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, points: Tensor, codes: Tensor, scale: Tensor, offset: Tensor
    ) -> Tensor:
        """`scale` and `offset` broadcast against `weight`."""
        ctx.save_for_backward(codes, scale)
        ctx.count = points.numel()
        return points.index_select(0, codes).view(weight.shape).mul_(scale).add_(offset)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        codes, scale = ctx.saved_tensors
        d_points = None
        if ctx.needs_input_grad[1]:
            d_points = torch.bincount(codes, (grad * scale).reshape(-1), ctx.count)
        through = grad if ctx.needs_input_grad[0] else None
        return through, d_points, None, None, None


def on_points(
    weight: Tensor, points: Tensor, codes: Tensor, scale: Tensor, offset: Tensor
) -> Tensor:
    """The real values of `codes`, with gradients to `points` and straight through to `weight`.

    Args:
        weight: (O, I, …); only its shape and its gradient matter.
        points: (s,).
        codes: int32, flat.
        scale: Broadcasts against `weight`.
        offset: Likewise.
    """
    out: Tensor = _OnPoints.apply(weight, points, codes, scale, offset)  # type: ignore[no-untyped-call]
    return out
