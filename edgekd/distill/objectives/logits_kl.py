"""Distillation of softened outputs (Hinton, Vinyals, Dean, 2015, arXiv:1503.02531, section 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

import torch.nn.functional as F
from pydantic import Field

from edgekd.core.config import Config
from edgekd.distill.objectives._contract import LOGITS, OBJECTIVES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


@OBJECTIVES.register
class LogitsKL(Config):
    """``T² · KL(softmax(teacher / T) || softmax(student / T))``, averaged over the batch.

    The divergence is summed over classes. Some published code (that of Polino et al., 2018, for
    one) averages over batch and classes together, which makes the term C times weaker: a `weight`
    taken from there has to be divided by the number of classes. The factor T² keeps the size of
    the gradient the same at every temperature.

    Attributes:
        weight: Factor of this term in the sum.
        temperature: T; higher shows the student more of the small probabilities.
    """

    zero_at_teacher: ClassVar[bool] = True

    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    temperature: Annotated[float, Field(gt=0, le=1000)] = 4.0

    @property
    def student_taps(self) -> tuple[str, ...]:
        """The logits."""
        return (LOGITS,)

    @property
    def teacher_taps(self) -> tuple[str, ...]:
        """The logits."""
        return (LOGITS,)

    def __call__(
        self, student: Mapping[str, Tensor], teacher: Mapping[str, Tensor], labels: Tensor
    ) -> Tensor:
        """Logits (B, C) of both -> scalar."""
        log_student = F.log_softmax(student[LOGITS].float() / self.temperature, dim=1)
        log_teacher = F.log_softmax(teacher[LOGITS].detach().float() / self.temperature, dim=1)
        divergence = (log_teacher.exp() * (log_teacher - log_student)).sum(1)
        return divergence.mean() * self.temperature**2
