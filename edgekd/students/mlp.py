"""Multilayer perceptrons, for vectors or flattened images."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

from pydantic import Field
from torch import nn

from edgekd.core.config import Config
from edgekd.students._build import Width
from edgekd.students._contract import FAMILIES, NetSpec

if TYPE_CHECKING:
    from torch import Tensor


class Perceptron(nn.Module):
    """Linear, batch norm, ReLU per hidden layer; then a linear head."""

    def __init__(self, spec: NetSpec, family: MLP) -> None:
        super().__init__()
        self.flatten = nn.Flatten()
        width = math.prod(spec.input_shape)
        hidden: list[nn.Module] = []
        for out in family.widths:
            # with batch norm the layer's own bias would be subtracted again
            hidden.append(nn.Linear(width, out, bias=not family.batch_norm))
            if family.batch_norm:
                hidden.append(nn.BatchNorm1d(out))
            hidden.append(nn.ReLU())
            if family.dropout:
                hidden.append(nn.Dropout(family.dropout))
            width = out
        self.hidden = nn.Sequential(*hidden)
        self.head = nn.Linear(width, spec.outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, *input_shape) -> logits (B, outputs)."""
        return self.head(self.hidden(self.flatten(x)))  # type: ignore[no-any-return]


@FAMILIES.register
class MLP(Config):
    """A multilayer perceptron.

    Attributes:
        widths: Features of each hidden layer; none makes a linear classifier.
        batch_norm: Normalise each hidden layer before its ReLU.
        dropout: Probability of dropping a hidden feature during training.
    """

    widths: tuple[Width, ...] = (128, 128)
    batch_norm: bool = True
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0

    def build(self, spec: NetSpec) -> nn.Module:
        """(B, *input_shape) -> logits (B, outputs)."""
        return Perceptron(spec, self)
