"""The float arms: the student with and without the teacher, over all seeds, and which is kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgekd.distill.evaluation import evaluate
from edgekd.distill.objectives._contract import OBJECTIVES
from edgekd.distill.trainer import train
from edgekd.distill.weights import load_weights, save_weights
from edgekd.steps.choose import Choice, Trained, TrainedArm, choose
from edgekd.steps.teach import listens, outputs, training_needs
from edgekd.students._build import build_seeded

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import nn

    from edgekd.core.stages import Stage
    from edgekd.distill.objectives._contract import Objective
    from edgekd.distill.settings import TrainSettings
    from edgekd.steps.job import Job
    from edgekd.steps.teach import ScoredTeacher

_WEIGHTS = "student.safetensors"


@dataclass(frozen=True, slots=True)
class FloatArms:
    """Both float arms and the decision between them.

    Attributes:
        control: Trained without the teacher.
        distilled: Trained with it.
        choice: Between them; distillation that did not help is not kept.
    """

    control: TrainedArm
    distilled: TrainedArm
    choice: Choice

    @property
    def kept(self) -> TrainedArm:
        """The arm that goes on."""
        return self.choice.kept


def float_students(job: Job, taught: ScoredTeacher) -> FloatArms:
    """Train both arms over all seeds and keep the better one."""
    section = job.recipe.distill
    labels_only = (OBJECTIVES.build("hard_label"),)
    control = _arm(job, "control", labels_only, taught)
    distilled = _arm(job, "distilled", section.objectives, taught)
    choice = choose(control, distilled, job.task, samples=len(job.data.validation))
    return FloatArms(control, distilled, choice)


def build_student(job: Job, seed: int) -> nn.Module:
    """A freshly initialised student of that seed."""
    return build_seeded(job.recipe.student, job.spec, seed)


def load_student(job: Job, trained: Trained) -> nn.Module:
    """A trained float student."""
    module = build_student(job, trained.seed)
    module.load_state_dict(load_weights(trained.weights))
    return module.eval()


def scored(job: Job, module: nn.Module) -> dict[str, Any]:
    """Metric and loss on validation, metric on test."""
    validation = evaluate(module, job.data.validation, job.task)
    test = evaluate(module, job.data.test, job.task)
    return {
        "validation": validation.score,
        "validation_loss": validation.loss,
        "test": test.score,
    }


def as_trained(stage: Stage, seed: int, file: str) -> Trained:
    """A finished training stage as a value."""
    return Trained(seed=seed, weights=stage.file(file), sha256=stage.files[file], **stage.result)


def _arm(
    job: Job, name: str, objectives: Sequence[Objective], taught: ScoredTeacher
) -> TrainedArm:
    settings: TrainSettings = job.recipe.distill
    written = job.recipe.as_written()
    students = []
    for seed in job.seeds:
        needs = job.needs(
            student=written["student"],
            train=training_needs(written["distill"]),
            objectives=[OBJECTIVES.spec_of(o) for o in objectives],
            teacher=taught.teacher.sha256 if listens(objectives) else None,
            seed=seed,
            view_seed=job.recipe.seed,
        )

        def work(folder: Path, seed: int = seed) -> tuple[dict[str, Any], list[str]]:
            module = build_student(job, seed)
            result = train(
                module,
                job.data,
                job.task,
                settings=settings,
                objectives=objectives,
                teacher=outputs(job, taught, objectives, settings),
                seed=seed,
                view_seed=job.recipe.seed,
                folder=folder,
                progress=job.progress,
                title=f"{name}, seed {seed}",
            )
            save_weights(folder / _WEIGHTS, module.state_dict(), {"arm": name, "seed": str(seed)})
            return {**scored(job, module), "train_s": result.train_s}, [_WEIGHTS]

        stage = job.run.stage(f"{name}/seed-{seed}", needs, work)
        students.append(as_trained(stage, seed, _WEIGHTS))
    return TrainedArm(name, tuple(students))
