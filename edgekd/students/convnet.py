"""Plain convolution nets: stages of convolutions with a pooling each, then a perceptron.

The three students of Polino et al. (2018, arXiv:1802.05668) are of this kind, e.g. their smallest,
25c5 10c5 P, 10c5 5c5 P, fc300: ``stages: [[25, 10], [10, 5]], kernel: 5, hidden: [300]``.

Two departures from the paper. It puts batch norm behind the ReLU and a ReLU on the logits; here
batch norm stands before the ReLU, where it folds into the layer that a runtime computes, and the
logits are free. The counts of parameters are the same but for the biases that batch norm makes
pointless.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field, field_validator
from torch import nn

from edgekd.core.config import Config
from edgekd.students._build import Width, conv_norm, image_shape
from edgekd.students._contract import FAMILIES, NetSpec

if TYPE_CHECKING:
    from torch import Tensor

_Stage = Annotated[tuple[Width, ...], Field(min_length=1)]


class PlainNet(nn.Module):
    """Stages, flatten, hidden layers, linear head."""

    def __init__(self, spec: NetSpec, family: ConvNet) -> None:
        super().__init__()
        width, height, breadth = spec.input_shape
        stages = []
        for widths in family.stages:
            layers: list[nn.Module] = []
            for out in widths:
                layers += [*conv_norm(width, out, family.kernel, 1), nn.ReLU()]
                width = out
            layers.append(nn.MaxPool2d(2))
            height, breadth = height // 2, breadth // 2
            if family.dropout:
                layers.append(nn.Dropout(family.dropout))
            stages.append(nn.Sequential(*layers))
        self.stages = nn.Sequential(*stages)
        self.flatten = nn.Flatten()
        features = width * height * breadth
        hidden: list[nn.Module] = []
        for out in family.hidden:
            hidden += [nn.Linear(features, out, bias=False), nn.BatchNorm1d(out), nn.ReLU()]
            if family.dropout:
                hidden.append(nn.Dropout(family.dropout))
            features = out
        self.hidden = nn.Sequential(*hidden)
        self.head = nn.Linear(features, spec.outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) -> logits (B, outputs)."""
        return self.head(self.hidden(self.flatten(self.stages(x))))  # type: ignore[no-any-return]


@FAMILIES.register
class ConvNet(Config):
    """A plain convolution net for images.

    Attributes:
        stages: Channels of the convolutions of each stage; a 2x2 max-pooling ends every stage.
        kernel: Side of every convolution, odd: the padding keeps the resolution.
        hidden: Features of each linear layer between the last stage and the head.
        dropout: Probability of dropping, behind every pooling and every hidden layer, a feature
            during training.
    """

    stages: Annotated[tuple[_Stage, ...], Field(min_length=1)] = ((16, 16), (32, 32))
    kernel: Annotated[int, Field(ge=1, le=15)] = 3
    hidden: tuple[Width, ...] = (128,)
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @field_validator("kernel")
    @classmethod
    def _odd(cls, kernel: int) -> int:
        if kernel % 2 == 0:
            raise ValueError(f"kernel is {kernel}; only an odd side has a middle")
        return kernel

    def build(self, spec: NetSpec) -> nn.Module:
        """(B, C, H, W) -> logits (B, outputs).

        Raises:
            RecipeError: The input is not an image, or too small for the poolings.
        """
        image_shape(spec, "convnet", 2 ** len(self.stages))
        return PlainNet(spec, self)
