"""Quantize and dequantize in float, with straight-through gradients.

The forward pass computes exactly what ONNX QuantizeLinear followed by DequantizeLinear computes.
Gradients: the value passes straight through inside the range and is cut outside (Bengio et al.
2013); the scale gets the learned-step-size gradient (Esser et al. 2020, LSQ, eq. 3). The range
ends where rounding does, half a step beyond the outermost codes; in the paper it ends at them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from edgekd.core.types import Affine, PerTensor
from edgekd.quantize.straight_through import CutOutside

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgekd.numerics.groups import Granularity


class _FakePerTensor(torch.autograd.Function):
    """One scale for the whole value: activations, so memory traffic decides.

    Nothing is kept for the backward pass but the value and the result, which the layers around
    keep anyway. The division is a real one: a product with the reciprocal, as torch's own
    fake-quant has it, rounds differently from ONNX QuantizeLinear now and then.
    """

    @staticmethod
    def forward(
        ctx: Any, value: Tensor, scale: Tensor, zero_point: Tensor, low: int, high: int
    ) -> Tensor:
        """`scale` and `zero_point` hold one number each."""
        zero = zero_point.item()
        out = torch.div(value, scale).round_().clamp_(low - zero, high - zero).mul_(scale)
        ctx.save_for_backward(value, out, scale)
        ctx.ends = (low - zero - 0.5, high - zero + 0.5)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        value, out, scale = ctx.saved_tensors
        step = scale.item()
        low, high = (end * step for end in ctx.ends)
        # one pass: the gradient where low < value < high, else 0
        passed = torch.ops.aten.hardtanh_backward(grad, value, low, high)
        grad_scale = None
        if ctx.needs_input_grad[1]:
            # d out / d scale, times the scale: inside out - value, beyond the ends out
            change = torch.ops.aten.hardtanh_backward(value, value, low, high)
            torch.sub(out, change, out=change)
            grad_scale = (_inner(grad, change) / step).view(scale.shape)
        grad_zero = None
        if ctx.needs_input_grad[2]:
            # the ends are at (code - zero_point) * scale; inside, rounding takes the move back
            grad_zero = ((passed.sum() - grad.sum()) * step).view(scale.shape)
        return passed, grad_scale, grad_zero, None, None


class _FakeAligned(CutOutside):
    """Many scales, lined up with the value: weights."""

    @staticmethod
    def forward(
        ctx: Any, value: Tensor, scale: Tensor, zero_point: Tensor, low: int, high: int
    ) -> Tensor:
        """`scale` and `zero_point` broadcast against `value`."""
        steps = value / scale
        codes = torch.round(steps).add_(zero_point).clamp_(low, high).sub_(zero_point)
        error = torch.sub(codes, steps)
        # inside the range a value is at most half a step from its code; beyond, it was cut
        inside = error.abs() <= 0.5
        d_scale = torch.where(inside, error, codes) if ctx.needs_input_grad[1] else None
        _FakeAligned.keep(ctx, inside, d_scale, scale)
        return codes * scale


def _inner(a: Tensor, b: Tensor) -> Tensor:
    """Sum of products, without a copy when both lie in memory the same way."""
    if a.ndim == 4 and a.is_contiguous(memory_format=torch.channels_last):
        a, b = a.permute(0, 2, 3, 1), b.permute(0, 2, 3, 1)
    return torch.dot(a.reshape(-1), b.reshape(-1))


def fake_quant(value: Tensor, scale: Tensor, zero_point: Tensor, low: int, high: int) -> Tensor:
    """Round `value` to the grid ``(code - zero_point) * scale`` with low <= code <= high.

    Args:
        value: Float tensor of any shape.
        scale: Positive; broadcasts against `value`.
        zero_point: Integers held in float; broadcasts against `value`. Gets a gradient only where
            it and `scale` are one number.
        low: Smallest code.
        high: Largest code.
    """
    one = scale.numel() == 1 and zero_point.numel() == 1
    kind = _FakePerTensor if one else _FakeAligned
    out: Tensor = kind.apply(value, scale, zero_point, low, high)  # type: ignore[no-untyped-call]
    return out


class ActivationFakeQuant(nn.Module):
    """Fake-quant of one activation tensor, per tensor.

    The scale is learned when `learned`, as ``scale * exp(log_gain)``: the gradient is then
    relative to the scale itself, which takes the place of LSQ's hand-set gradient factor (section
    2.2). The zero point stays where calibration put it, unless it is learned too; one that starts
    at the smallest code (behind a ReLU) or is signed (and so 0) always stays, so that the runtime
    can absorb the ReLU.

    Attributes:
        log_gain: Trained, ().
        zero_shift: How far the zero point has moved, in shares of the code range; trained, (). The
            forward pass rounds it to the integer that is stored, with a straight-through gradient
            (LSQ+, Bhalgat et al. 2020, arXiv 2004.09576, eq. 6, with the offset a whole number
            of steps, as integer kernels need it).
    """

    def __init__(self, affine: Affine, *, learned: bool, learned_zero_point: bool = False) -> None:
        super().__init__()
        self.bits, self.signed, self.narrow = affine.bits, affine.signed, affine.narrow
        self.low, self.high = affine.code_min, affine.code_max
        self.register_buffer("scale", torch.tensor(float(affine.scale)))
        self.register_buffer("zero_point", torch.tensor(float(affine.zero_point)))
        self.log_gain = nn.Parameter(torch.zeros(())) if learned else None
        moves = learned_zero_point and not self.signed and int(affine.zero_point) > self.low
        self.zero_shift = nn.Parameter(torch.zeros(())) if moves else None

    scale: Tensor
    zero_point: Tensor

    def step_size(self) -> Tensor:
        """The scale in force, ()."""
        if self.log_gain is None:
            return self.scale
        return self.scale * torch.exp(self.log_gain)

    def zero(self) -> Tensor:
        """The zero point in force, a whole number, ()."""
        if self.zero_shift is None:
            return self.zero_point
        real = self.zero_point + (self.high - self.low) * self.zero_shift
        whole = real.detach().round().clamp(self.low, self.high)
        return whole + (real - real.detach())

    def forward(self, value: Tensor) -> Tensor:
        """Same shape, on the grid."""
        value = value.float()  # the grid needs more than bfloat16's 8 bits
        scale = self.step_size()
        return fake_quant(value, scale, self.zero(), self.low, self.high)

    def affine(self) -> Affine:
        """The encoding in force."""
        return Affine(
            bits=self.bits,
            signed=self.signed,
            granularity=PerTensor(),
            scale=np.array(self.step_size().detach().item(), np.float32),
            zero_point=np.array(self.zero().item(), np.int32),
            narrow=self.narrow,
        )


def symmetric(scale: NDArray[np.float32], granularity: Granularity, bits: int) -> Affine:
    """Signed codes around zero point 0, the most negative one left out."""
    scale = np.asarray(scale, np.float32)
    return Affine(bits, True, granularity, scale, np.zeros(scale.shape, np.int32), narrow=True)
