"""What can be wrong about a training is found before the first one starts, not hours later."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from edgekd.distill.augment import check_augment
from edgekd.distill.objectives._contract import LOGITS
from edgekd.distill.step import Stepper
from edgekd.quantize.fold import fold_batch_norms, trace
from edgekd.quantize.mixed import budget_bytes, offers
from edgekd.quantize.placement import place
from edgekd.steps.learn import build_student
from edgekd.steps.teach import listens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from edgekd.distill.objectives._contract import Objective
    from edgekd.distill.settings import TrainSettings
    from edgekd.steps.job import Job
    from edgekd.steps.teach import ScoredTeacher

_SAMPLES = 2


def check_views(job: Job) -> None:
    """Refuse augmentation that the inputs cannot take, in any training of the recipe.

    Raises:
        RecipeError: The inputs are no images, or smaller than the crop.
    """
    recipe = job.recipe
    for settings in (recipe.teacher.train, recipe.distill, recipe.quantize.train):
        if settings is not None:
            check_augment(settings.augment, job.data.input_shape)


def check_trainings(job: Job, taught: ScoredTeacher) -> None:
    """Refuse objectives and patterns that name what teacher or student do not have.

    Raises:
        RecipeError: There is no such layer, two layers cannot be compared, or the weights do not
            fit into the budget for them.
        UnsupportedError: The teacher is a black box, or the student cannot be quantized.
    """
    recipe = job.recipe
    student = build_student(job, recipe.seed)
    _check_objectives(job, taught, student, recipe.distill, recipe.distill.objectives)
    if all(target.scheme is None for target in job.targets):
        return
    graph = fold_batch_norms(trace(student))
    place(graph, rules=recipe.quantize.placed_rules())
    if recipe.quantize.mixed is not None:
        for scheme in (t.scheme for t in job.targets if t.scheme is not None):
            budget_bytes(offers(graph, recipe.quantize, scheme), recipe.quantize)
    if recipe.quantize.method == "quantized_distillation":
        section = recipe.quantize
        _check_objectives(job, taught, graph, section.train, section.objectives)


def _check_objectives(
    job: Job,
    taught: ScoredTeacher,
    student: nn.Module,
    settings: TrainSettings,
    objectives: Sequence[Objective],
) -> None:
    shapes = {}
    if listens(objectives):
        names = sorted({LOGITS, *(name for o in objectives for name in o.teacher_taps)})
        inputs = job.data.train.batch(np.arange(min(_SAMPLES, len(job.data.train))))
        said = taught.teacher.taps(torch.from_numpy(inputs), names)
        shapes = {name: tuple(tensor.shape[1:]) for name, tensor in said.items()}
    Stepper(
        student,
        settings,
        objectives,
        input_shape=job.data.input_shape,
        teacher_shapes=shapes,
        seed=job.recipe.seed,
    )
