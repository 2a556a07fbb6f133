"""Residual networks of basic blocks (He et al., 2016, arXiv:1512.03385, section 4.2).

Where a block changes width or resolution its shortcut is a 1x1 convolution with batch norm
(option B of the paper).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field, model_validator
from torch import nn

from edgekd.core.config import Config
from edgekd.students._build import Width, conv_norm, image_shape
from edgekd.students._contract import FAMILIES, NetSpec

if TYPE_CHECKING:
    from torch import Tensor


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: (B, in, H, W) -> (B, out, H/stride, W/stride)."""

    def __init__(self, width_in: int, width_out: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = conv_norm(width_in, width_out, 3, stride)
        self.relu1 = nn.ReLU()
        self.conv2, self.norm2 = conv_norm(width_out, width_out, 3, 1)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or width_in != width_out:
            self.shortcut = nn.Sequential(*conv_norm(width_in, width_out, 1, stride))
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """One block."""
        y = self.relu1(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        return self.relu2(y + self.shortcut(x))  # type: ignore[no-any-return]


class ResidualNet(nn.Module):
    """Stem, stages of blocks, global average, linear head."""

    def __init__(self, spec: NetSpec, family: ResNet) -> None:
        super().__init__()
        channels, _, _ = spec.input_shape
        width = family.stem_width or family.widths[0]
        self.conv, self.norm = conv_norm(channels, width, 3, family.stem_stride)
        self.relu = nn.ReLU()
        stages = []
        for stage, (out, depth) in enumerate(zip(family.widths, family.depths, strict=True)):
            blocks = []
            for block in range(depth):
                stride = 2 if stage > 0 and block == 0 else 1
                blocks.append(BasicBlock(width, out, stride))
                width = out
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(width, spec.outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) -> logits (B, outputs)."""
        x = self.stages(self.relu(self.norm(self.conv(x))))
        return self.head(x.mean((2, 3)))  # type: ignore[no-any-return]


@FAMILIES.register
class ResNet(Config):
    """A residual network for images.

    Attributes:
        widths: Channels of each stage; every stage after the first halves the resolution.
        depths: Blocks of each stage.
        stem_width: Channels of the first convolution; None for those of the first stage.
        stem_stride: Stride of the first convolution; 2 makes everything four times cheaper.
    """

    widths: Annotated[tuple[Width, ...], Field(min_length=1)] = (16, 32, 64)
    depths: Annotated[tuple[Annotated[int, Field(ge=1, le=64)], ...], Field(min_length=1)] = (
        1,
        1,
        1,
    )
    stem_width: Width | None = None
    stem_stride: Annotated[int, Field(ge=1, le=4)] = 1

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.widths) != len(self.depths):
            raise ValueError(
                f"widths names {len(self.widths)} stages and depths {len(self.depths)};"
                " give both the same length"
            )
        return self

    def build(self, spec: NetSpec) -> nn.Module:
        """(B, C, H, W) -> logits (B, outputs).

        Raises:
            RecipeError: The input is not an image, or too small for the strides.
        """
        image_shape(spec, "resnet", self.stem_stride * 2 ** (len(self.widths) - 1))
        return ResidualNet(spec, self)
