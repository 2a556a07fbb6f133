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

    It may declare two things more. ``zero_at_teacher: ClassVar[bool]``: the term vanishes where
    the student's taps equal the teacher's. ``projector(student_shape, teacher_shape)``: a module,
    or None, that maps the one student tap to the shape of the one teacher tap (shapes of one
    sample); the trainer trains it along, applies it first, and throws it away.
    """

    @property
    def weight(self) -> float:
        """Factor of this term in the sum."""

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

if TYPE_CHECKING:
    ObjectiveField = Objective  # what a recipe's field holds once it is read
else:
    ObjectiveField = OBJECTIVES.field()
