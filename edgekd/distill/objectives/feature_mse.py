"""Distance of inner activations (FitNets: Romero et al., 2015, arXiv:1412.6550, equation 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

import torch.nn.functional as F
from pydantic import Field
from torch import nn

from edgekd.core.config import Config
from edgekd.core.errors import RecipeError
from edgekd.distill.objectives._contract import OBJECTIVES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

_Layer = Annotated[str, Field(min_length=1)]


@OBJECTIVES.register
class FeatureMSE(Config):
    """Mean squared difference of one activation of the student and one of the teacher.

    Where the widths differ, a 1x1 convolution (a linear layer for vectors) maps the student's to
    the teacher's; it is trained along and thrown away.

    Attributes:
        weight: Factor of this term in the sum.
        student_layer: Path of the layer in the student, e.g. ``stages.1``.
        teacher_layer: Path of the layer in the teacher.
    """

    zero_at_teacher: ClassVar[bool] = True

    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    student_layer: _Layer = Field(examples=["stages.1"])
    teacher_layer: _Layer = Field(examples=["stages.1"])

    @property
    def student_taps(self) -> tuple[str, ...]:
        """The student's layer."""
        return (self.student_layer,)

    @property
    def teacher_taps(self) -> tuple[str, ...]:
        """The teacher's layer."""
        return (self.teacher_layer,)

    def projector(
        self, student_shape: tuple[int, ...], teacher_shape: tuple[int, ...]
    ) -> nn.Module | None:
        """What maps the student's activation to the teacher's width; None if nothing is needed.

        Args:
            student_shape: Of one sample, (C, ...).
            teacher_shape: Of one sample, (C, ...).

        Raises:
            RecipeError: The two differ in more than the width.
        """
        if len(student_shape) != len(teacher_shape) or student_shape[1:] != teacher_shape[1:]:
            raise RecipeError(
                f"feature_mse cannot compare {self.student_layer!r} of the student with"
                f" {self.teacher_layer!r} of the teacher.",
                expected="the same height and width in both; channels may differ",
                got=f"{student_shape} in the student, {teacher_shape} in the teacher",
                todo="name two layers behind the same total stride",
            )
        if len(student_shape) not in (1, 3):
            raise RecipeError(
                f"feature_mse cannot read {self.student_layer!r}.",
                expected="vectors (C,) or maps (C, H, W)",
                got=f"shape {student_shape}",
            )
        width_in, width_out = student_shape[0], teacher_shape[0]
        if width_in == width_out:
            return None
        if len(student_shape) == 1:
            return nn.Linear(width_in, width_out, bias=False)
        return nn.Conv2d(width_in, width_out, 1, bias=False)

    def __call__(
        self, student: Mapping[str, Tensor], teacher: Mapping[str, Tensor], labels: Tensor
    ) -> Tensor:
        """Two activations of the same shape (B, C, ...) -> scalar."""
        target = teacher[self.teacher_layer].detach().float()
        return F.mse_loss(student[self.student_layer].float(), target)
