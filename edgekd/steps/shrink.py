"""The integer arms: post-training quantization and quantized distillation, and which is kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekd.distill.objectives._contract import OBJECTIVES
from edgekd.distill.trainer import train
from edgekd.quantize import store
from edgekd.quantize.convert import QuantizationAware, simulate
from edgekd.quantize.fold import fold_batch_norms, trace
from edgekd.steps.choose import Choice, Trained, TrainedArm, choose
from edgekd.steps.learn import as_trained, build_student, load_student, scored
from edgekd.steps.mix import allocation, resolved
from edgekd.steps.points import with_shared_points
from edgekd.steps.teach import listens, outputs

if TYPE_CHECKING:
    from pathlib import Path

    from edgekd.core.types import QuantizedStudent, Scheme
    from edgekd.quantize.mixed import Allocation
    from edgekd.recipe import QuantizeSection
    from edgekd.steps.job import Job
    from edgekd.steps.teach import ScoredTeacher

_FILE = "quantized.safetensors"


@dataclass(frozen=True, slots=True)
class IntegerArms:
    """Both integer arms for one scheme.

    Attributes:
        scheme: Whose codes they hold.
        post_training: Calibrated only.
        trained: Trained through the rounding; None if the recipe does not ask for it.
        choice: Between them.
        allocation: Bits of each layer, where the recipe asks for mixed precision.
    """

    scheme: Scheme
    post_training: TrainedArm
    trained: TrainedArm | None
    choice: Choice
    allocation: Allocation | None = None

    @property
    def kept(self) -> TrainedArm:
        """The arm that is deployed."""
        return self.choice.kept


def quantized_students(
    job: Job, kept: TrainedArm, taught: ScoredTeacher
) -> dict[str, IntegerArms]:
    """For each way of training that the targets' schemes need, by its `training_key`."""
    schemes = {t.scheme.training_key: t.scheme for t in job.targets if t.scheme is not None}
    return {key: _arms(job, kept, taught, scheme) for key, scheme in schemes.items()}


def load_quantized(job: Job, trained: Trained) -> QuantizedStudent:
    """A quantized student from its stage."""
    graph = fold_batch_norms(trace(build_student(job, trained.seed)))
    return store.load(trained.weights, graph)


def _arms(job: Job, kept: TrainedArm, taught: ScoredTeacher, scheme: Scheme) -> IntegerArms:
    bits = allocation(job, kept, scheme)
    section = with_shared_points(job, kept, scheme, resolved(job.recipe.quantize, bits))
    post_training = TrainedArm(
        "post_training", tuple(_post_training(job, s, scheme, section) for s in kept.students)
    )
    if section.method == "post_training":
        only = Choice(post_training, "the only one asked for")
        return IntegerArms(scheme, post_training, None, only, bits)
    trained = TrainedArm(
        "quantized_distillation",
        tuple(_distilled(job, s, scheme, section, taught) for s in kept.students),
    )
    choice = choose(post_training, trained, job.task, samples=len(job.data.validation))
    return IntegerArms(scheme, post_training, trained, choice, bits)


def _post_training(job: Job, source: Trained, scheme: Scheme, section: QuantizeSection) -> Trained:
    needs = job.needs(
        student=source.sha256,
        scheme=scheme.training_key,
        quantize=section.needs(),
        seed=source.seed,
    )

    def work(folder: Path) -> tuple[dict[str, Any], list[str]]:
        aware = _aware(job, source, scheme, section, learned=False)
        return {**_finish(job, aware, folder), "train_s": 0.0}, [_FILE]

    stage = job.run.stage(f"post_training/seed-{source.seed}", needs, work)
    return as_trained(stage, source.seed, _FILE)


def _distilled(
    job: Job, source: Trained, scheme: Scheme, section: QuantizeSection, taught: ScoredTeacher
) -> Trained:
    needs = job.needs(
        student=source.sha256,
        scheme=scheme.training_key,
        quantize=section.model_dump(
            mode="json",
            exclude={"method": True, "train": {"checkpoint_every_s"}, "objectives": True},
        ),
        objectives=[OBJECTIVES.spec_of(o) for o in section.objectives],
        teacher=taught.teacher.sha256 if listens(section.objectives) else None,
        seed=source.seed,
        view_seed=job.recipe.seed,
    )

    def work(folder: Path) -> tuple[dict[str, Any], list[str]]:
        aware = _aware(job, source, scheme, section, learned=section.learned_ranges)
        result = train(
            aware.module,
            job.data,
            job.task,
            settings=section.train,
            objectives=section.objectives,
            teacher=outputs(job, taught, section.objectives, section.train),
            seed=source.seed,
            view_seed=job.recipe.seed,
            folder=folder,
            progress=job.progress,
            title=f"quantized distillation, seed {source.seed}",
        )
        return {**_finish(job, aware, folder), "train_s": result.train_s}, [_FILE]

    stage = job.run.stage(f"quantized_distillation/seed-{source.seed}", needs, work)
    return as_trained(stage, source.seed, _FILE)


def _aware(
    job: Job, source: Trained, scheme: Scheme, section: QuantizeSection, *, learned: bool
) -> QuantizationAware:
    count = min(section.calibration_samples, len(job.data.train))
    picked = np.random.default_rng(source.seed).permutation(len(job.data.train))[:count]
    return QuantizationAware(
        load_student(job, source),
        section,
        scheme,
        job.data.train.batch(np.sort(picked)),
        learned=learned,
        seed=source.seed,
    )


def _finish(job: Job, aware: QuantizationAware, folder: Path) -> dict[str, Any]:
    """Freeze, store, and score what was stored rather than what was trained."""
    frozen = aware.freeze()
    store.save(frozen, folder / _FILE)
    return scored(job, simulate(frozen))
