"""Pieces that the families share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import Field
from torch import nn

from edgekd.core.errors import RecipeError

if TYPE_CHECKING:
    from edgekd.students._contract import Family, NetSpec

#: number of channels or features of a layer
Width = Annotated[int, Field(ge=1, le=8192)]


def conv_norm(
    width_in: int, width_out: int, kernel: int, stride: int, *, groups: int = 1
) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    """A convolution without bias and the batch norm after it, He-initialised for a ReLU."""
    conv = nn.Conv2d(
        width_in, width_out, kernel, stride, padding=kernel // 2, groups=groups, bias=False
    )
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv, nn.BatchNorm2d(width_out)


def image_shape(spec: NetSpec, family: str, reduction: int) -> tuple[int, int, int]:
    """(C, H, W) of the input.

    Args:
        spec: What the network must accept.
        family: Name for error texts.
        reduction: Product of all strides; fewer pixels than that on a side leave nothing to
            convolve in the last stage.

    Raises:
        RecipeError: The input is not (C, H, W), or smaller than `reduction`.
    """
    if len(spec.input_shape) != 3:
        raise RecipeError(
            f"The student family {family!r} is for images.",
            expected="an input of shape (channels, height, width)",
            got=f"{spec.input_shape}",
            todo="take `mlp` for vectors",
        )
    channels, height, width = spec.input_shape
    if min(height, width) < reduction:
        raise RecipeError(
            f"The student {family!r} reduces the image more than its size allows.",
            expected=f"at least {reduction}x{reduction} pixels for these strides",
            got=f"{height}x{width}",
            todo="take fewer stages or smaller strides",
        )
    return channels, height, width


def build_seeded(family: Family, spec: NetSpec, seed: int) -> nn.Module:
    """A network whose first weights depend on `seed` alone; the global generator is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return family.build(spec)
