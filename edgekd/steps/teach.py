"""The teacher: trained here or brought along, then scored, and asked about every view once."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from edgekd.core.hashing import sha256_json
from edgekd.distill.cache import TeacherOutputs
from edgekd.distill.settings import TrainSettings
from edgekd.distill.teacher import Teacher, check_teacher
from edgekd.distill.trainer import train
from edgekd.distill.weights import save_weights
from edgekd.steps.cost import reported_cost
from edgekd.students._build import build_seeded

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from edgekd.distill.objectives._contract import Objective
    from edgekd.steps.job import Job
    from edgekd.tasks._contract import Split

_WEIGHTS = "teacher.safetensors"
_BATCH = 512


@dataclass(frozen=True, slots=True)
class ScoredTeacher:
    """A teacher and how good it is.

    Attributes:
        teacher: Gives logits.
        validation: Metric on the validation split.
        test: Metric on the test split.
        parameters: Count; None for a black box.
        macs: Multiply-accumulates of one sample; None for a black box, or where not countable.
        warning: Why they are not countable.
    """

    teacher: Teacher
    validation: float
    test: float
    parameters: int | None
    macs: int | None
    warning: str = ""


def teacher(job: Job) -> ScoredTeacher:
    """Train or load the teacher, check that it fits the data, and score it."""
    section = job.recipe.teacher
    if section.family is not None:
        stage = job.run.stage("teacher", _family_needs(job), lambda f: _train_family(job, f))
        found = section.load(job.folder, job.spec, weights=stage.file(_WEIGHTS))
    else:
        found = section.load(job.folder, job.spec)
    check_teacher(found, job.data, job.task)
    needs = job.needs(teacher=found.sha256)
    scores = job.run.stage("teacher_score", needs, lambda _: (_score(job, found), [])).result
    return ScoredTeacher(teacher=found, **scores)


def outputs(
    job: Job, taught: ScoredTeacher, objectives: Sequence[Objective], settings: TrainSettings
) -> TeacherOutputs | None:
    """What the teacher says about every view of the train split; None if nobody listens.

    Computed where it is missing; trainings with the same views share one folder.
    """
    if not listens(objectives):
        return None
    paths = sorted({path for o in objectives for path in o.teacher_taps})
    augment = settings.augment
    key = sha256_json(
        job.needs(
            teacher=taught.teacher.sha256,
            augment=augment.model_dump(mode="json", exclude={"views"}),
            taps=paths,
            seed=job.recipe.seed,
        )
    )
    return TeacherOutputs.open(
        job.run.folder / "teacher_outputs" / key[:16],
        taught.teacher,
        job.data,
        augment=augment,
        epochs=settings.epochs,
        progress=job.progress,
        taps=paths,
        view_seed=job.recipe.seed,
        title="asking the teacher",
    )


def listens(objectives: Sequence[Objective]) -> bool:
    """Whether any objective reads the teacher."""
    return any(o.teacher_taps for o in objectives)


def _family_needs(job: Job) -> dict[str, Any]:
    settings = job.recipe.teacher.train or TrainSettings()
    return job.needs(
        family=job.recipe.as_written()["teacher"]["family"],
        train=training_needs(settings.model_dump(mode="json")),
        seed=job.recipe.seed,
    )


def _train_family(job: Job, folder: Path) -> tuple[dict[str, Any], list[str]]:
    section = job.recipe.teacher
    assert section.family is not None  # the caller looked
    module = build_seeded(section.family, job.spec, job.recipe.seed)
    result = train(
        module,
        job.data,
        job.task,
        settings=section.train or TrainSettings(),
        seed=job.recipe.seed,
        view_seed=job.recipe.seed,
        folder=folder,
        progress=job.progress,
        title="teacher",
    )
    save_weights(folder / _WEIGHTS, module.state_dict(), {"role": "teacher"})
    return {"train_s": result.train_s}, [_WEIGHTS]


def training_needs(settings: dict[str, Any]) -> dict[str, Any]:
    """What a training depends on besides its objectives: not on how often it saves itself."""
    return {k: v for k, v in settings.items() if k not in ("checkpoint_every_s", "objectives")}


def _score(job: Job, taught: Teacher) -> dict[str, Any]:
    module = taught.module
    scores = {
        name: job.task.score(_logits(taught, split), split.labels)
        for name, split in (("validation", job.data.validation), ("test", job.data.test))
    }
    if module is None:
        return {**scores, "parameters": None, "macs": None}
    return {**scores, **asdict(reported_cost(module, job.spec.input_shape, title="teacher"))}


def _logits(taught: Teacher, split: Split) -> NDArray[np.float32]:
    parts = [
        taught.logits(torch.from_numpy(split.batch(np.arange(i, min(i + _BATCH, len(split))))))
        for i in range(0, len(split), _BATCH)
    ]
    return torch.cat(parts).float().numpy()
