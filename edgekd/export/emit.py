"""Layers that write their own ONNX: true integer initializers behind DequantizeLinear.

Each module computes the same in torch and, while ``torch.onnx.export`` traces it, emits the exact
operators a runtime fuses. Nothing is left to an optimizer that might or might not fold it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from edgekd.core.types import Affine, Scheme
from edgekd.export.storage import DOMAIN, WEIGHT, Stored, form, kernel_integers
from edgekd.numerics.encoding import decode

if TYPE_CHECKING:
    from collections.abc import Sequence

#: how an emitted tensor is called: `name_nodes` turns these initializer names into node names
CODES, GRID_SCALE = "codes", "grid_scale"
_DTYPES = {"uint8": torch.uint8, "int8": torch.int8}


class EmitGrid(nn.Module):
    """An activation on its grid: QuantizeLinear and DequantizeLinear."""

    grid_scale: Tensor
    zero_point: Tensor

    def __init__(self, affine: Affine, scheme: Scheme) -> None:
        super().__init__()
        self.opset, self.dtype = scheme.opset, _DTYPES[scheme.activations]
        self.low, self.high = affine.code_min, affine.code_max
        self.register_buffer(GRID_SCALE, torch.tensor(float(affine.scale)))
        self.register_buffer("zero_point", torch.tensor(int(affine.zero_point), dtype=self.dtype))

    def forward(self, value: Tensor) -> Tensor:
        """Same shape."""
        if not torch.onnx.is_in_onnx_export():
            zero = self.zero_point.float()
            codes = torch.clamp(torch.round(value / self.grid_scale) + zero, self.low, self.high)
            return (codes - zero) * self.grid_scale
        codes = _symbolic(
            "QuantizeLinear",
            (value, self.grid_scale, self.zero_point),
            dtype=self.dtype,
            shape=value.shape,
            opset=self.opset,
        )
        return _symbolic(
            "DequantizeLinear",
            (codes, self.grid_scale, self.zero_point),
            shape=value.shape,
            opset=self.opset,
        )


class EmitLayer(nn.Module):
    """A convolution or linear layer stored as codes, with its bias as the scheme wants it.

    Args:
        layer: The float layer; its weight is dropped.
        stored: What its weight is made of.
        input_scale: Scale of the grid its input lies on; an int32 bias is in steps of
            ``input_scale * weight scale``, which is what integer kernels accumulate in. None
            where the input is in float.
        scheme: Of the target.
        number: Of the layer; no other of its model has it.
    """

    codes: Tensor
    decoded: Tensor
    scale: Tensor
    zero_point: Tensor
    bias: Tensor | None
    bias_codes: Tensor | None
    bias_scale: Tensor

    def __init__(
        self,
        layer: nn.Module,
        stored: Stored,
        input_scale: float | None,
        scheme: Scheme,
        number: int,
    ) -> None:
        super().__init__()
        source: Any = layer
        self.opset, self.layer = scheme.opset, layer
        bias = None if source.bias is None else source.bias.detach().clone()
        # the float weights are gone from the file: only their codes are stored
        source.weight, source.bias = None, None
        self.register_buffer("bias_codes", None)
        held = scheme.holds.matmul if isinstance(layer, nn.Linear) else scheme.holds.conv
        runs_as = form(stored, held, in_float=input_scale is None)
        kernel = kernel_integers(stored) if runs_as == "kernel" else None
        self.in_float = kernel is None
        if kernel is None or input_scale is None:
            # they only hold the place of the codes at their real width; torch would write equal
            # ones of two layers once, and both layers would get the weights of the first
            place = torch.full(stored.codes.shape, number, dtype=torch.int32)
            self.register_buffer(CODES, place)
            decoded = decode(stored.codes, stored.encoding)
            self.register_buffer("decoded", torch.from_numpy(decoded))
            self.register_buffer("bias", bias)
            return
        integers, scale = kernel
        self.register_buffer(CODES, torch.from_numpy(integers))
        self.register_buffer("scale", torch.from_numpy(scale.copy()))
        self.register_buffer("zero_point", torch.zeros(scale.shape, dtype=torch.int8))
        as_codes = bias is not None and scheme.bias == "int32"
        self.register_buffer("bias", None if as_codes else bias)
        if as_codes and bias is not None:
            step = np.asarray(scale * np.float32(input_scale), np.float32)
            limits = np.iinfo(np.int32)
            codes32 = np.rint(bias.numpy().astype(np.float64) / step)
            self.bias_codes = torch.from_numpy(
                np.clip(codes32, limits.min, limits.max).astype(np.int32)
            )
            self.register_buffer("bias_scale", torch.from_numpy(step))

    def forward(self, value: Tensor) -> Tensor:
        """As the layer, with its stored integers."""
        weight = self._weight()
        bias = self.bias
        if self.bias_codes is not None:
            bias = self._dequantized(self.bias_codes, self.bias_scale, None)
        if isinstance(self.layer, nn.Linear):
            return nn.functional.linear(value, weight, bias)
        layer: Any = self.layer
        out: Tensor = layer._conv_forward(value, weight, bias)
        return out

    def _weight(self) -> Tensor:
        if not self.in_float:
            return self._dequantized(self.codes, self.scale, self.zero_point)
        if not torch.onnx.is_in_onnx_export():
            return self.decoded
        name = f"{DOMAIN}::{WEIGHT}"
        return _symbolic(name, (self.codes,), shape=self.codes.shape, opset=1)

    def _dequantized(self, codes: Tensor, scale: Tensor, zero_point: Tensor | None) -> Tensor:
        if not torch.onnx.is_in_onnx_export():
            shape = [-1] + [1] * (codes.ndim - 1) if scale.ndim else []
            return codes.float() * scale.view(shape)
        return _symbolic(
            "DequantizeLinear",
            (codes, scale) if zero_point is None else (codes, scale, zero_point),
            attrs={"axis": 0} if scale.ndim else {},
            shape=codes.shape,
            opset=self.opset,
        )


class EmitGlobalPool(nn.Module):
    """Mean over height and width as GlobalAveragePool, which has an integer kernel.

    torch exports it as ReduceMean, which has none in ONNX Runtime.
    """

    def __init__(self, opset: int, *, keep_dims: bool) -> None:
        super().__init__()
        self.opset, self.keep_dims = opset, keep_dims

    def forward(self, value: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C), or (B, C, 1, 1) when dims are kept."""
        if not torch.onnx.is_in_onnx_export():
            return value.mean((2, 3), keepdim=self.keep_dims)
        b, c = value.shape[:2]
        pooled = _symbolic("GlobalAveragePool", (value,), shape=(b, c, 1, 1), opset=self.opset)
        return pooled if self.keep_dims else pooled.flatten(1)


def _symbolic(
    op: str,
    inputs: Sequence[Tensor],
    *,
    shape: Sequence[int],
    opset: int,
    dtype: torch.dtype = torch.float32,
    attrs: dict[str, int] | None = None,
) -> Tensor:
    return torch.onnx.ops.symbolic(
        op, inputs, {**(attrs or {})}, dtype=dtype, shape=shape, version=opset
    )
