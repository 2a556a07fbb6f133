"""Weights that share a scale, in torch with gradients; `numerics.groups` is the numpy form."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from edgekd.core.types import PerBlock, PerChannel, PerTensor

if TYPE_CHECKING:
    from torch import Tensor

    from edgekd.numerics.groups import Granularity


def to_rows(weight: Tensor, granularity: Granularity) -> Tensor:
    """(O, I, …) -> (groups, members); a short last block repeats its last value."""
    match granularity:
        case PerTensor():
            return weight.reshape(1, -1)
        case PerChannel(axis=axis):
            return weight.movedim(axis, 0).flatten(1)
        case PerBlock(size=size):
            flat = weight.reshape(-1)
            size = min(size, flat.numel())
            missing = -flat.numel() % size
            return torch.cat([flat, flat[-1:].expand(missing)]).view(-1, size)


def summed(values: Tensor, granularity: Granularity) -> Tensor:
    """Sum of each group, shape as `numerics.groups.scale_shape` says; nothing counts twice."""
    match granularity:
        case PerTensor():
            return values.sum()
        case PerChannel():
            return to_rows(values, granularity).sum(1)
        case PerBlock(size=size):
            flat = values.reshape(-1)
            size = min(size, flat.numel())
            return F.pad(flat, (0, -flat.numel() % size)).view(-1, size).sum(1)


def from_rows(rows: Tensor, shape: torch.Size, granularity: Granularity) -> Tensor:
    """The inverse of `to_rows`."""
    match granularity:
        case PerTensor():
            return rows.view(shape)
        case PerChannel(axis=axis):
            rest = [n for i, n in enumerate(shape) if i != axis % len(shape)]
            return rows.view(shape[axis], *rest).movedim(0, axis)
        case PerBlock():
            return rows.reshape(-1)[: shape.numel()].view(shape)


def aligned(per_group: Tensor, shape: torch.Size, granularity: Granularity) -> Tensor:
    """One number per group, shaped to broadcast against a weight of `shape`, with gradients."""
    match granularity:
        case PerTensor():
            return per_group.view(())
        case PerChannel(axis=axis):
            line_up = [1] * len(shape)
            line_up[axis] = -1
            return per_group.view(line_up)
        case PerBlock(size=size):
            size = min(size, shape.numel())
            repeated = per_group.view(-1, 1).expand(-1, size).reshape(-1)
            return repeated[: shape.numel()].view(shape)
