"""Small networks that hold every pattern the walker must understand."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Residual(nn.Module):
    """Stem, a block with a projected shortcut, max-pool, mean, head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(8)
        self.conv1 = nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(16)
        self.shortcut = nn.Conv2d(8, 16, 1, stride=2)
        self.pool = nn.MaxPool2d(2)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, 16, 16) -> (B, 10)."""
        x = F.relu(self.stem_norm(self.stem(x)))
        y = F.relu(self.norm1(self.conv1(x)))
        y = F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))
        y = self.pool(y)
        y = y.mean((2, 3))
        out: Tensor = self.head(self.dropout(y))
        return out


class Depthwise(nn.Module):
    """Depthwise-separable with ReLU6 and an adaptive pool."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU6(),
            nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU6(),
            nn.Conv2d(8, 16, 1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(16, 10),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, 16, 16) -> (B, 10)."""
        out: Tensor = self.body(x)
        return out


class Dense(nn.Module):
    """A perceptron whose batch size stands in the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(256, 32)
        self.norm = nn.BatchNorm1d(32)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, 16, 16) -> (B, 10)."""
        x = x.view(x.size(0), -1)
        out: Tensor = self.head(F.relu(self.norm(self.hidden(x))))
        return out


NETS = {"residual": Residual, "depthwise": Depthwise, "dense": Dense}
INPUT_SHAPE = (1, 16, 16)


def trained_looking(name: str, seed: int = 0) -> nn.Module:
    """A net whose batch-norm statistics are not those of a fresh one."""
    torch.manual_seed(seed)
    net = NETS[name]()
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.2)  # type: ignore[union-attr]
            layer.running_var.uniform_(0.3, 2.0)  # type: ignore[union-attr]
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, 0, 0.2)
    return net.eval()
