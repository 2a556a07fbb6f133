"""Quantize and dequantize in float, with straight-through gradients.

The forward pass computes exactly what ONNX QuantizeLinear followed by DequantizeLinear computes.
Gradients: the value passes straight through inside the range and is cut outside (Bengio et al.
2013); the scale gets the learned-step-size gradient (Esser et al. 2020, LSQ, eq. 3).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgekd.core.types import Affine, PerTensor


class _FakeAffine(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, value: Tensor, scale: Tensor, zero_point: Tensor, low: int, high: int
    ) -> Tensor:
        """`scale` and `zero_point` broadcast against `value`."""
        steps = value / scale
        codes = torch.round(steps).add_(zero_point).clamp_(low, high).sub_(zero_point)
        ctx.save_for_backward(steps, codes, scale)
        return codes * scale

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        steps, codes, scale = ctx.saved_tensors
        error = codes - steps
        # inside the range a value is at most half a step from its code; beyond, it was cut
        inside = error.abs() <= 0.5
        grad_scale = None
        if ctx.needs_input_grad[1]:
            d_scale = grad * torch.where(inside, error, codes)
            reduce = [i for i, n in enumerate(scale.shape) if n == 1]
            grad_scale = d_scale.sum(reduce, keepdim=True) if scale.ndim else d_scale.sum()
        return grad * inside, grad_scale, None, None, None


def fake_quant(value: Tensor, scale: Tensor, zero_point: Tensor, low: int, high: int) -> Tensor:
    """Round `value` to the grid ``(code - zero_point) * scale`` with low <= code <= high.

    Args:
        value: Float tensor of any shape.
        scale: Positive; broadcasts against `value`.
        zero_point: Integers held in float; broadcasts against `value`.
        low: Smallest code.
        high: Largest code.
    """
    out: Tensor = _FakeAffine.apply(value, scale, zero_point, low, high)  # type: ignore[no-untyped-call]
    return out


class ActivationFakeQuant(nn.Module):
    """Fake-quant of one activation tensor, per tensor.

    The zero point stays where calibration put it, so a tensor that starts at 0 (behind a ReLU)
    keeps zero point 0 and the runtime can absorb the ReLU. The scale is learned when `learned`,
    as ``scale * exp(log_gain)``: the gradient is then relative to the scale itself, which takes
    the place of LSQ's hand-set gradient factor (section 2.2).
    """

    def __init__(self, affine: Affine, *, learned: bool) -> None:
        super().__init__()
        self.bits, self.signed, self.narrow = affine.bits, affine.signed, affine.narrow
        self.low, self.high = affine.code_min, affine.code_max
        self.register_buffer("scale", torch.tensor(float(affine.scale)))
        self.register_buffer("zero_point", torch.tensor(float(affine.zero_point)))
        self.log_gain = nn.Parameter(torch.zeros(())) if learned else None

    scale: Tensor
    zero_point: Tensor

    def step_size(self) -> Tensor:
        """The scale in force, ()."""
        if self.log_gain is None:
            return self.scale
        return self.scale * torch.exp(self.log_gain)

    def forward(self, value: Tensor) -> Tensor:
        """Same shape, on the grid."""
        value = value.float()  # the grid needs more than bfloat16's 8 bits
        scale = self.step_size()
        return fake_quant(value, scale, self.zero_point, self.low, self.high)

    def affine(self) -> Affine:
        """The encoding in force."""
        return Affine(
            bits=self.bits,
            signed=self.signed,
            granularity=PerTensor(),
            scale=np.array(self.step_size().detach().item(), np.float32),
            zero_point=np.array(self.zero_point.item(), np.int32),
            narrow=self.narrow,
        )


def per_channel_shape(weight: Tensor) -> list[int]:
    """Shape that lines a (O,) vector up with a weight of shape (O, I, …)."""
    return [-1] + [1] * (weight.ndim - 1)
