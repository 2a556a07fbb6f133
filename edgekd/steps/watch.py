"""The detector of distillation that hurts: a distilled training against its control arm."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median, stdev
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgekd.distill.trainer import EpochRecord
    from edgekd.tasks._contract import Task


#: epochs whose median is compared
_SMOOTHED = 3


@dataclass(frozen=True, slots=True)
class Watch:
    """Ends a distilled training that stays behind the same training on labels alone.

    Compared are medians over three epochs: at few bits a single one can fall by ten points and
    rise again, in either arm, and must neither end a training nor save one.

    Attributes:
        controls: Validation metric of the control arm after every epoch, per seed.
        paired: Which of them has the seed of the watched training.
        task: Knows its metric's standard error.
        samples: Of the validation split.
        patience: Epochs in a row that the control must be ahead by more than chance.
    """

    controls: Sequence[Sequence[float]]
    paired: int
    task: Task
    samples: int
    patience: int

    def __call__(self, history: Sequence[EpochRecord]) -> bool:
        """Whether to stop after these epochs."""
        recent = range(len(history) - self.patience, len(history))
        return recent.start >= _SMOOTHED - 1 and all(
            self._lead(epoch, history) > self._chance(epoch, history) for epoch in recent
        )

    def reason(self, history: Sequence[EpochRecord], epochs: int) -> str:
        """Why it was stopped, in words."""
        last = len(history) - 1
        return (
            f"stopped after epoch {len(history)} of {epochs}: the control arm, trained on labels "
            f"alone, was ahead by more than chance for {self.patience} epochs, at last by "
            f"{100 * self._lead(last, history):.2f} pt "
            f"(chance: {100 * self._chance(last, history):.2f} pt; medians of {_SMOOTHED} epochs)"
        )

    def _lead(self, epoch: int, history: Sequence[EpochRecord]) -> float:
        return _median(self.controls[self.paired], epoch) - _median(_scores(history), epoch)

    def _chance(self, epoch: int, history: Sequence[EpochRecord]) -> float:
        """The larger of the controls' spread over seeds and of the standard error of a lead."""
        scores = [_median(control, epoch) for control in self.controls]
        pair = (scores[self.paired], _median(_scores(history), epoch))
        error = math.hypot(*(self.task.standard_error(s, self.samples) for s in pair))
        return max(error, stdev(scores) if len(scores) > 1 else 0.0)


def _scores(history: Sequence[EpochRecord]) -> list[float]:
    return [record.validation_score for record in history]


def _median(scores: Sequence[float], epoch: int) -> float:
    return median(scores[epoch + 1 - _SMOOTHED : epoch + 1])
