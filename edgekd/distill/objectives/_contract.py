"""Contract of a distillation objective: a pure function of named activations ("taps")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from edgekd.core.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

#: the tap that every model has: its output, shape (B, C)
LOGITS = "logits"


class Objective(Protocol):
    """One term of the loss; its pydantic fields are its settings in the recipe.

    Attributes:
        weight: Factor of this term in the sum.
    """

    weight: float

    @property
    def student_taps(self) -> tuple[str, ...]:
        """Module paths in the student that it reads, or `LOGITS`."""

    @property
    def teacher_taps(self) -> tuple[str, ...]:
        """The same for the teacher; empty when it needs no teacher."""

    def __call__(
        self, student: Mapping[str, Tensor], teacher: Mapping[str, Tensor], labels: Tensor
    ) -> Tensor:
        """The unweighted term, a scalar averaged over the batch."""


OBJECTIVES: Registry[Objective] = Registry("objective", "edgekd.distill.objectives")
