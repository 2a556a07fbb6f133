"""Which of two arms is kept: decided on the validation split, and never by chance alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from edgekd.tasks._contract import Task


@dataclass(frozen=True, slots=True)
class Trained:
    """One student of one arm.

    Attributes:
        seed: Of its training.
        weights: File of the float or of the quantized student.
        sha256: Of that file.
        validation: Metric on the validation split.
        validation_loss: Cross-entropy on the validation split; decides between equals.
        test: Metric on the test split; never chosen by.
        train_s: Seconds of training.
        history: Metric on the validation split after every epoch; empty without a training.
        stopped: Why the training was ended early; empty where it was not.
        oscillating: Share of the weights that still flip between two codes at the end; None where
            nobody looked.
        frozen: Share of the weights that were frozen for that.
    """

    seed: int
    weights: Path
    sha256: str
    validation: float
    validation_loss: float
    test: float
    train_s: float
    history: Sequence[float] = ()
    stopped: str = ""
    oscillating: float | None = None
    frozen: float | None = None


@dataclass(frozen=True, slots=True)
class TrainedArm:
    """One way of training, over all seeds.

    Attributes:
        name: control, distilled, post_training, quantized_control or quantized_distillation.
        students: One per seed; of an arm that was stopped, those trained until then.
        note: What else the report should say.
    """

    name: str
    students: tuple[Trained, ...]
    note: str = ""

    @property
    def validation(self) -> float:
        """Mean metric over seeds."""
        return fmean(s.validation for s in self.students)

    @property
    def validation_loss(self) -> float:
        """Mean loss over seeds."""
        return fmean(s.validation_loss for s in self.students)

    @property
    def stopped(self) -> str:
        """Why the arm was given up; empty where it was not."""
        return next((s.stopped for s in self.students if s.stopped), "")

    @property
    def best(self) -> Trained:
        """The seed to deploy, by validation."""
        return max(self.students, key=lambda s: (s.validation, -s.validation_loss))

    def of_seed(self, seed: int) -> Trained:
        """The student of one seed."""
        return next(s for s in self.students if s.seed == seed)


@dataclass(frozen=True, slots=True)
class Choice:
    """A decision between two arms.

    Attributes:
        kept: The better one.
        reason: What decided, for the report.
    """

    kept: TrainedArm
    reason: str


def choose(plain: TrainedArm, refined: TrainedArm, task: Task, *, samples: int) -> Choice:
    """The arm with the better metric; where chance could explain the difference, the lower loss.

    Args:
        plain: The cheaper arm; kept if nothing speaks for the other.
        refined: The arm that has to show that it helps.
        task: Knows its metric's standard error.
        samples: Of the validation split.
    """
    gain = refined.validation - plain.validation
    noise = math.hypot(
        *(task.standard_error(a.validation, samples * len(a.students)) for a in (plain, refined))
    )
    if abs(gain) > noise:
        kept = refined if gain > 0 else plain
        return Choice(kept, f"{100 * abs(gain):.2f} pt better on validation")
    kept = refined if refined.validation_loss < plain.validation_loss else plain
    return Choice(
        kept,
        f"equal on validation within chance ({100 * noise:.2f} pt); "
        f"loss {kept.validation_loss:.3f} against "
        f"{(plain if kept is refined else refined).validation_loss:.3f}",
    )
