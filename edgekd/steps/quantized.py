"""One quantized student: calibrated only, or trained through its rounding; each a stage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgekd.distill.feed import Feed
from edgekd.distill.objectives._contract import OBJECTIVES
from edgekd.distill.trainer import train
from edgekd.quantize import store
from edgekd.quantize.convert import QuantizationAware, simulate
from edgekd.quantize.oscillation import shares
from edgekd.steps.learn import as_trained, load_student, scored
from edgekd.steps.teach import listens, outputs, training_needs

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from edgekd.core.types import Scheme
    from edgekd.distill.objectives._contract import Objective
    from edgekd.recipe import QuantizeSection
    from edgekd.steps.choose import Trained
    from edgekd.steps.job import Job
    from edgekd.steps.teach import ScoredTeacher
    from edgekd.steps.watch import Watch

FILE = "quantized.safetensors"


def calibrated(job: Job, source: Trained, scheme: Scheme, section: QuantizeSection) -> Trained:
    """The student after post-training quantization."""
    needs = job.needs(
        student=source.sha256,
        scheme=scheme.training_key,
        quantize=section.needs(),
        seed=source.seed,
    )

    def work(folder: Path) -> tuple[dict[str, Any], list[str]]:
        aware = _aware(job, source, scheme, section, learned=False)
        return {**_finish(job, aware, folder), "train_s": 0.0}, [FILE]

    stage = job.run.stage(f"post_training/seed-{source.seed}", needs, work)
    return as_trained(stage, source.seed, FILE)


def refined(
    job: Job,
    source: Trained,
    scheme: Scheme,
    section: QuantizeSection,
    taught: ScoredTeacher,
    *,
    name: str,
    objectives: Sequence[Objective],
    watch: Watch | None = None,
) -> Trained:
    """The student after training through its rounding.

    Args:
        job: The run.
        source: The float student it starts from.
        scheme: Of the targets it is for.
        section: How; its objectives are not looked at.
        taught: The teacher.
        name: Of the stage, e.g. quantized_distillation; the title says it in words.
        objectives: What it listens to.
        watch: May end it early.
    """
    needs = job.needs(
        student=source.sha256,
        scheme=scheme.training_key,
        quantize={**section.needs(), **section.training_needs()},
        train=training_needs(section.train.model_dump(mode="json")),
        objectives=[OBJECTIVES.spec_of(o) for o in objectives],
        teacher=taught.teacher.sha256 if listens(objectives) else None,
        seed=source.seed,
        view_seed=job.recipe.seed,
        watch=None if watch is None else [list(map(list, watch.controls)), watch.patience],
    )

    def work(folder: Path) -> tuple[dict[str, Any], list[str]]:
        per_epoch = Feed(job.data.train, section.train.batch_size, source.seed).steps_per_epoch
        aware = _aware(
            job,
            source,
            scheme,
            section,
            learned=section.learned_ranges,
            steps=per_epoch * section.train.epochs,
        )
        result = train(
            aware.module,
            job.data,
            job.task,
            settings=section.train,
            objectives=objectives,
            teacher=outputs(job, taught, objectives, section.train),
            seed=source.seed,
            view_seed=job.recipe.seed,
            folder=folder,
            progress=job.progress,
            title=f"{name.replace('_', ' ')}, seed {source.seed}",
            stop_when=watch,
        )
        stopped = ""
        if watch is not None and result.stopped:
            stopped = watch.reason(result.history, section.train.epochs)
            job.progress.say(f"{name}, seed {source.seed}: {stopped}")
        return {
            **_finish(job, aware, folder),
            "train_s": result.train_s,
            "history": [record.validation_score for record in result.history],
            "stopped": stopped,
            **shares(aware.module),
        }, [FILE]

    return as_trained(job.run.stage(f"{name}/seed-{source.seed}", needs, work), source.seed, FILE)


def _aware(
    job: Job,
    source: Trained,
    scheme: Scheme,
    section: QuantizeSection,
    *,
    learned: bool,
    steps: int = 0,
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
        steps=steps,
    )


def _finish(job: Job, aware: QuantizationAware, folder: Path) -> dict[str, Any]:
    """Freeze, store, and score what was stored rather than what was trained."""
    frozen = aware.freeze()
    store.save(frozen, folder / FILE)
    return scored(job, simulate(frozen))
