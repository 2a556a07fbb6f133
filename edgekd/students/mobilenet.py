"""Depthwise separable networks (Howard et al., 2017, arXiv:1704.04861, section 3).

Each block is a 3x3 convolution per channel and a 1x1 convolution over channels: about eight
times fewer multiplications than a full 3x3 convolution of the same width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator
from torch import nn

from edgekd.core.config import Config
from edgekd.students._build import Width, conv_norm, image_shape
from edgekd.students._contract import FAMILIES, NetSpec

if TYPE_CHECKING:
    from torch import Tensor

_Stride = Annotated[int, Field(ge=1, le=4)]
_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "relu6": nn.ReLU6}


class SeparableBlock(nn.Module):
    """(B, in, H, W) -> (B, out, H/stride, W/stride)."""

    def __init__(
        self, width_in: int, width_out: int, stride: int, activation: type[nn.Module]
    ) -> None:
        super().__init__()
        self.depthwise, self.norm1 = conv_norm(width_in, width_in, 3, stride, groups=width_in)
        self.act1 = activation()
        self.pointwise, self.norm2 = conv_norm(width_in, width_out, 1, 1)
        self.act2 = activation()

    def forward(self, x: Tensor) -> Tensor:
        """One block."""
        x = self.act1(self.norm1(self.depthwise(x)))
        return self.act2(self.norm2(self.pointwise(x)))  # type: ignore[no-any-return]


class SeparableNet(nn.Module):
    """Stem, separable blocks, global average, linear head."""

    def __init__(self, spec: NetSpec, family: MobileNet) -> None:
        super().__init__()
        activation = _ACTIVATIONS[family.activation]
        width = family.stem_width
        self.conv, self.norm = conv_norm(spec.input_shape[0], width, 3, family.stem_stride)
        self.act = activation()
        blocks = []
        for out, stride in zip(family.widths, family.strides, strict=True):
            blocks.append(SeparableBlock(width, out, stride, activation))
            width = out
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(width, spec.outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) -> logits (B, outputs)."""
        x = self.blocks(self.act(self.norm(self.conv(x))))
        return self.head(x.mean((2, 3)))  # type: ignore[no-any-return]


@FAMILIES.register
class MobileNet(Config):
    """A depthwise separable network for images.

    Attributes:
        stem_width: Channels of the first, full convolution.
        stem_stride: Its stride.
        widths: Channels behind each block.
        strides: Stride of each block.
        activation: relu, or relu6 with outputs cut at 6, which keeps int8 ranges short.
    """

    stem_width: Width = 16
    stem_stride: _Stride = 1
    widths: Annotated[tuple[Width, ...], Field(min_length=1)] = (32, 64, 64, 128)
    strides: Annotated[tuple[_Stride, ...], Field(min_length=1)] = (2, 1, 2, 1)
    activation: Literal["relu", "relu6"] = "relu"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.widths) != len(self.strides):
            raise ValueError(
                f"widths names {len(self.widths)} blocks and strides {len(self.strides)};"
                " give both the same length"
            )
        return self

    def build(self, spec: NetSpec) -> nn.Module:
        """(B, C, H, W) -> logits (B, outputs).

        Raises:
            RecipeError: The input is not an image, or too small for the strides.
        """
        reduction = self.stem_stride
        for stride in self.strides:
            reduction *= stride
        image_shape(spec, "mobilenet", reduction)
        return SeparableNet(spec, self)
