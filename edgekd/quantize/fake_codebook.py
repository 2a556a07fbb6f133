"""Round to the nearest of a few points, with straight-through gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from edgekd.quantize.straight_through import CutOutside

if TYPE_CHECKING:
    from torch import Tensor


class _FakeCodebook(CutOutside):
    """Points shared by all values, a scale for each."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, scale: Tensor, points: Tensor, edges: Tensor) -> Tensor:
        """`scale` broadcasts against `value`."""
        steps = value / scale
        nearest = points[torch.bucketize(steps, edges)]
        inside = (steps >= points[0]) & (steps <= points[-1])
        d_scale = None
        if ctx.needs_input_grad[1]:
            d_scale = torch.where(inside, nearest - steps, nearest)
        _FakeCodebook.keep(ctx, inside, d_scale, scale)
        return nearest * scale


def fake_codebook(value: Tensor, scale: Tensor, points: Tensor) -> Tensor:
    """Round `value` to the nearest of ``points * scale``; half-way goes to the lower one.

    Gradients: the value passes straight through between the outermost points and is cut beyond;
    the scale gets that of a learned clipping range (Li et al. 2020, arXiv 1909.13144, eq. 8).

    Args:
        value: Float tensor of any shape.
        scale: Positive; broadcasts against `value`.
        points: Ascending, (points,); not trained.
    """
    edges = 0.5 * (points[1:] + points[:-1])
    out: Tensor = _FakeCodebook.apply(value, scale, points, edges)  # type: ignore[no-untyped-call]
    return out
