"""Contract of a student family."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from edgekd.core.registry import Registry

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True)
class NetSpec:
    """What a network must accept and give.

    Attributes:
        input_shape: Of one sample, (C, H, W) for images.
        outputs: Number of logits.
    """

    input_shape: tuple[int, ...]
    outputs: int


class Family(Protocol):
    """A family; its pydantic fields are one frozen choice out of its search space."""

    def build(self, spec: NetSpec) -> nn.Module:
        """A freshly initialised network: (B, *input_shape) -> logits (B, outputs).

        Raises:
            RecipeError: The choice does not fit the spec.
        """


FAMILIES: Registry[Family] = Registry("student family", "edgekd.students")

if TYPE_CHECKING:
    FamilyField = Family  # what a recipe's field holds once it is read
else:
    FamilyField = FAMILIES.field()
