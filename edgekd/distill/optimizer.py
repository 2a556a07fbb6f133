"""The optimizer of a training and its learning rate at every step."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edgekd.distill.settings import TrainSettings


def learning_rate_factor(settings: TrainSettings, step: int, steps_per_epoch: int) -> float:
    """Share of the peak rate at a step counted over the whole training, in (0, 1]."""
    warmup = math.ceil(settings.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return (step + 1) / warmup
    if settings.schedule == "constant":
        return 1.0
    total = settings.epochs * steps_per_epoch
    # + 1 in both: the last warm-up step has the full rate, the last step still moves
    return 0.5 * (1 + math.cos(math.pi * (step - warmup + 1) / (total - warmup + 1)))


def build_optimizer(
    settings: TrainSettings, parameters: Iterable[nn.Parameter]
) -> torch.optim.Optimizer:
    """SGD or AdamW over groups of equal decay and rate.

    Biases, norm weights and single numbers (fewer than two dimensions) are not decayed. A
    parameter may carry `lr_scale`, a factor on its learning rate.

    The fused kernels are 0.1 ms faster a step, but pair values by their place in memory: with a
    gradient of another memory layout than its weight they silently update the wrong ones.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in parameters:
        if parameter.requires_grad:
            decay = settings.weight_decay if parameter.ndim >= 2 else 0.0
            scale = float(getattr(parameter, "lr_scale", 1.0))
            groups.setdefault((decay, scale), []).append(parameter)
    described = [
        {"params": members, "weight_decay": decay, "lr_scale": scale}
        for (decay, scale), members in groups.items()
    ]
    rate = settings.learning_rate
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(described, lr=rate, foreach=True)
    optimizer = torch.optim.SGD(
        described, lr=rate, momentum=settings.momentum, nesterov=settings.nesterov, foreach=True
    )
    if settings.momentum:
        for members in groups.values():
            for parameter in members:  # what the first step makes anyway; now it can be saved
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set every group's rate, times the group's own factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_scale"]
