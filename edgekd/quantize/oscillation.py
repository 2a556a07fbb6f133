"""Weights that jump to and fro between two codes: counted, and frozen where they should be.

Near the end of a training with few bits a weight whose best value lies between two codes flips
from step to step, and the network that is kept is whatever the last flip left (Nagel et al. 2022,
arXiv 2203.11086, section 4.3: iterative weight freezing).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from edgekd.numerics.encoding import decode, encode

if TYPE_CHECKING:
    from edgekd.core.types import Encoding
    from edgekd.quantize.settings import FreezeSettings

#: flips per step above which a weight is said to oscillate (the paper's section 3)
_OSCILLATING = 0.005


class Oscillation(nn.Module):
    """Watches the codes of one layer's weight; everything it remembers is a buffer.

    A flip is a change of code against the direction of the last one. Its frequency is a moving
    average over steps; above the threshold, and once training is far enough, the weight is frozen
    at the code it had on average.

    Attributes:
        codes: Of the last step.
        direction: Of the last change, -1, 0 or 1.
        frequency: Flips per step.
        average: Moving average of the codes.
        frozen: Which weights stand still, at `average` rounded.
        steps: So far.
    """

    codes: Tensor
    direction: Tensor
    frequency: Tensor
    average: Tensor
    frozen: Tensor
    steps: Tensor

    def __init__(self, weight: Tensor, settings: FreezeSettings, *, start_step: int) -> None:
        super().__init__()
        self.settings, self.start_step = settings, start_step
        shape = weight.shape
        self.register_buffer("codes", torch.zeros(shape, dtype=torch.int32))
        self.register_buffer("direction", torch.zeros(shape, dtype=torch.int8))
        self.register_buffer("frequency", torch.zeros(shape))
        self.register_buffer("average", torch.zeros(shape))
        self.register_buffer("frozen", torch.zeros(shape, dtype=torch.bool))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def hold(self, weight: Tensor, encoding: Encoding) -> None:
        """Put frozen weights back on their code, wherever the optimizer has moved them."""
        if self.frozen.any():
            still = torch.from_numpy(decode(self.average.round().int().numpy(), encoding))
            weight.copy_(torch.where(self.frozen, still, weight))

    @torch.no_grad()
    def see(self, weight: Tensor, encoding: Encoding) -> None:
        """Count one training step, and freeze what flips too often."""
        codes = torch.from_numpy(encode(weight.detach().contiguous().numpy(), encoding))
        if int(self.steps) == 0:
            self.codes.copy_(codes)
            self.average.copy_(codes)
        momentum = self.settings.momentum
        change = (codes - self.codes).sign().to(torch.int8)
        flipped = (change * self.direction) < 0
        self.frequency.lerp_(flipped.float(), momentum)
        self.average.copy_(
            torch.where(self.frozen, self.average, self.average.lerp(codes.float(), momentum))
        )
        self.direction.copy_(torch.where(change != 0, change, self.direction))
        self.codes.copy_(codes)
        self.steps += 1
        if int(self.steps) > self.start_step:
            self.frozen |= self.frequency > self.settings.threshold

    def counts(self) -> tuple[int, int, int]:
        """Weights, those still oscillating, those frozen."""
        oscillating = (self.frequency > _OSCILLATING) & ~self.frozen
        return self.frozen.numel(), int(oscillating.sum()), int(self.frozen.sum())


def shares(module: nn.Module) -> dict[str, float]:
    """Share of a network's watched weights that oscillate, and that are frozen, at the end."""
    found: list[Any] = [m.counts() for m in module.modules() if isinstance(m, Oscillation)]
    total = sum(count for count, _, _ in found)
    if not total:
        return {}
    return {
        "oscillating": sum(n for _, n, _ in found) / total,
        "frozen": sum(n for _, _, n in found) / total,
    }
