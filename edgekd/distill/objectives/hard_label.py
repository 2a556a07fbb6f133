"""Cross-entropy against the true labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import torch.nn.functional as F
from pydantic import Field

from edgekd.core.config import Config
from edgekd.distill.objectives._contract import LOGITS, OBJECTIVES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


@OBJECTIVES.register
class HardLabel(Config):
    """``-log softmax(student)[label]``, averaged over the batch.

    Attributes:
        weight: Factor of this term in the sum.
        label_smoothing: Share of the target spread evenly over all classes (Szegedy et al., 2016,
            arXiv:1512.00567, section 7).
    """

    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @property
    def student_taps(self) -> tuple[str, ...]:
        """The logits."""
        return (LOGITS,)

    @property
    def teacher_taps(self) -> tuple[str, ...]:
        """None: works without a teacher."""
        return ()

    def __call__(
        self, student: Mapping[str, Tensor], teacher: Mapping[str, Tensor], labels: Tensor
    ) -> Tensor:
        """Logits (B, C) and labels (B,) -> scalar."""
        logits = student[LOGITS].float()
        return F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
