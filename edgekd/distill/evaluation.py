"""How well a network does on a split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgekd.tasks._contract import Split, Task


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a network does on a split.

    Attributes:
        score: The task's metric.
        loss: Mean cross-entropy against the labels.
        logits: (N, outputs), float32.
    """

    score: float
    loss: float
    logits: NDArray[np.float32]


def evaluate(model: nn.Module, split: Split, task: Task, batch_size: int = 512) -> Evaluation:
    """Run `split` through `model` in float32 and eval mode; the model's mode is put back."""
    modes = [(layer, layer.training) for layer in model.modules()]
    model.eval()
    parts = []
    try:
        with torch.no_grad():
            for start in range(0, len(split), batch_size):
                indices = np.arange(start, min(start + batch_size, len(split)))
                parts.append(model(torch.from_numpy(split.batch(indices))).float())
    finally:
        for layer, training in modes:
            layer.training = training
    logits = torch.cat(parts)
    labels = torch.from_numpy(split.labels)
    loss = F.cross_entropy(logits.double(), labels).item()
    array = logits.numpy()
    return Evaluation(task.score(array, split.labels), loss, array)
