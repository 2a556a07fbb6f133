"""Temperature and weight of the teacher, tried at the very bits they are for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgekd.distill.objectives._contract import OBJECTIVES
from edgekd.steps.quantized import refined

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgekd.core.types import Scheme
    from edgekd.distill.objectives._contract import Objective
    from edgekd.recipe import QuantizeSection
    from edgekd.steps.choose import TrainedArm
    from edgekd.steps.job import Job
    from edgekd.steps.teach import ScoredTeacher


@dataclass(frozen=True, slots=True)
class Tuned:
    """What was found.

    Attributes:
        section: With the objectives that were chosen.
        note: Every trial, in words; empty where the recipe does not ask.
    """

    section: QuantizeSection
    note: str = ""


def tuned(
    job: Job, kept: TrainedArm, taught: ScoredTeacher, scheme: Scheme, section: QuantizeSection
) -> Tuned:
    """Train the first seed for a few epochs at every point of the grid; the least loss wins.

    Decided on the cross-entropy of the validation split. Labels alone are tried too, for the
    note; whether the teacher is wanted at all is for the control arm to say.
    """
    if section.tune is None:
        return Tuned(section)
    grid = section.tune
    epochs = min(grid.epochs, section.train.epochs)
    warmup = section.train.warmup_epochs * epochs / section.train.epochs
    train = section.train.model_copy(update={"epochs": epochs, "warmup_epochs": warmup})
    short = section.model_copy(update={"train": train})

    def loss(label: str, objectives: Sequence[Objective]) -> float:
        name = f"tune/{label.replace(' ', '-').replace(',', '')}"
        student = refined(
            job, kept.students[0], scheme, short, taught, name=name, objectives=objectives
        )
        return student.validation_loss

    tried: list[tuple[float, str, Sequence[Objective]]] = []
    for weight in grid.weights:
        for temperature in grid.temperatures:
            objectives = with_teacher(section.objectives, temperature, weight)
            label = f"T {temperature:g}, weight {weight:g}"
            tried.append((loss(label, objectives), label, objectives))
    best = min(tried, key=lambda trial: trial[0])
    losses = [f"{label}: {found:.4f}" for found, label, _ in tried]
    losses.append(f"labels alone: {loss('labels alone', (OBJECTIVES.build('hard_label'),)):.4f}")
    note = f"{best[1]} has the least validation loss after {epochs} epochs ({'; '.join(losses)})"
    return Tuned(section.model_copy(update={"objectives": tuple(best[2])}), note)


def with_teacher(
    objectives: Sequence[Any], temperature: float, weight: float
) -> tuple[Objective, ...]:
    """The same terms: those with a temperature at `weight`, those of labels at the rest of 1."""
    found = []
    for objective in objectives:
        update: dict[str, float] = {}
        if hasattr(objective, "temperature"):
            update = {"temperature": temperature, "weight": weight}
        elif not objective.teacher_taps:
            update = {"weight": 1 - weight}
        if update.get("weight") != 0:
            found.append(objective.model_copy(update=update))
    return tuple(found)
