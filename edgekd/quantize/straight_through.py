"""The backward pass of rounding to a grid with many scales."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import Tensor


class CutOutside(torch.autograd.Function):
    """Straight through inside the range, cut outside; the scale's slope is the forward's.

    A forward pass takes the value, the scale and what else it needs, and ends with `keep`.
    """

    @staticmethod
    def keep(ctx: Any, inside: Tensor, d_scale: Tensor | None, scale: Tensor) -> None:
        """Leave what the backward pass needs.

        Args:
            ctx: Of the forward pass.
            inside: Where the value lies in the range; of its shape.
            d_scale: d out / d scale at each value; None where the scale is not trained.
            scale: As the forward pass got it; broadcasts against the value.
        """
        ctx.save_for_backward(inside, d_scale)
        ctx.scale_shape = scale.shape

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Of the value and the scale; nothing else is trained."""
        inside, d_scale = ctx.saved_tensors
        grad_scale = None
        if d_scale is not None:
            grad_scale = (grad * d_scale).sum_to_size(ctx.scale_shape)
        others = (None,) * (len(ctx.needs_input_grad) - 2)
        return grad * inside, grad_scale, *others
