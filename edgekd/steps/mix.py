"""Mixed precision: the loss that every layer at every width costs, measured, and the choice."""

from __future__ import annotations

import json
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekd.core.files import atomic_write
from edgekd.distill.evaluation import evaluate
from edgekd.distill.feed import ResidentSplit
from edgekd.quantize.convert import granularity_for
from edgekd.quantize.fold import fold_batch_norms, trace
from edgekd.quantize.mixed import Allocation, allocate
from edgekd.quantize.offers import budget_bytes, loss_increases, offers
from edgekd.report import layer_bits
from edgekd.steps.learn import load_student
from edgekd.steps.pace import Paced, paced

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from edgekd.core.types import Scheme
    from edgekd.quantize.mixed import Option
    from edgekd.recipe import QuantizeSection
    from edgekd.steps.choose import Trained, TrainedArm
    from edgekd.steps.job import Job

_DONE = "measured.json"


@dataclass(frozen=True, slots=True)
class Chosen:
    """Bits of each layer, and under a budget of time how they were found."""

    allocation: Allocation
    paced: Paced | None = None


def allocation(job: Job, kept: TrainedArm, scheme: Scheme) -> Chosen | None:
    """Bits per layer for all seeds of the kept float arm; None where the recipe does not ask.

    The increases are means over the seeds, so that every seed has the same bits and the files
    the same size.
    """
    section = job.recipe.quantize.within(scheme.weight_bits)
    if section.mixed is None:
        return None
    graph = fold_batch_norms(trace(load_student(job, kept.students[0])))
    offered = offers(graph, section, scheme)
    measured = [_sensitivity(job, student, scheme) for student in kept.students]
    mean = {
        layer: {int(bits): fmean(m[layer][bits] for m in measured) for bits in found}
        for layer, found in measured[0].items()
    }
    if section.mixed.latency is not None:
        found = paced(job, scheme, mean)
        return Chosen(found.allocation, found)
    return Chosen(allocate(offered, mean, budget_bytes(offered, section)))


def resolved(section: QuantizeSection, found: Chosen | None) -> QuantizeSection:
    """The section with the allocation written out as rules."""
    if found is None:
        return section
    rules = (*found.allocation.rules(section.weights), *section.rules)
    return section.model_copy(update={"rules": rules, "mixed": None})


def reported(job: Job, chosen: Chosen, scheme: str) -> layer_bits.MixedBits:
    """The allocation for the report; `scheme` is empty where there is only one."""
    assert job.recipe.quantize.mixed is not None  # else nothing was found
    found = chosen.allocation
    return layer_bits.MixedBits(
        scheme=scheme,
        budget_bytes=found.budget_bytes,
        size_bytes=found.size_bytes,
        predicted_increase=found.predicted_increase,
        samples=min(job.recipe.quantize.mixed.samples, len(job.data.train)),
        layers=tuple(
            layer_bits.LayerBits(
                layer=x.layer,
                weights=x.weights,
                bits=x.bits,
                size_bytes=x.size_bytes,
                options=tuple(_option(chosen, x.layer, o) for o in x.options),
                why=x.why,
            )
            for x in found.layers
        ),
        time=None if chosen.paced is None else _time(job, chosen.paced),
    )


def _option(chosen: Chosen, layer: str, option: Option) -> layer_bits.BitsOption:
    times = None if chosen.paced is None else chosen.paced.times
    return layer_bits.BitsOption(
        bits=option.bits,
        size_bytes=option.size_bytes,
        loss_increase=option.loss_increase,
        slower_us=None if times is None else times.slower_us[layer][option.bits],
        same_kernels=times is not None and option.bits in times.same_kernels[layer],
    )


def _time(job: Job, found: Paced) -> layer_bits.MixedTime:
    mixed = job.recipe.quantize.mixed
    assert mixed is not None  # else nothing was found
    assert mixed.latency is not None
    return layer_bits.MixedTime(
        budget_ms=mixed.latency,
        widest_bits=found.times.widest_bits,
        widest_us=found.times.whole_us,
        repeat_us=found.times.repeat_us,
        predicted_us=found.predicted_us,
        measured_ms=dict(found.measured_ms),
        tries=found.tries,
    )


def _sensitivity(job: Job, student: Trained, scheme: Scheme) -> dict[str, dict[str, float]]:
    """Layer -> bits -> increase of the loss on train samples, for one seed."""
    section = job.recipe.quantize.within(scheme.weight_bits)
    assert section.mixed is not None  # the caller looked
    mixed = section.mixed
    count = min(mixed.samples, len(job.data.train))
    needs = job.needs(
        student=student.sha256,
        granularity=granularity_for(section, scheme).model_dump(),
        quantize=section.model_dump(mode="json", include={"weights", "keep_float", "rules"}),
        bits=list(mixed.bits),
        samples=count,
        seed=student.seed,
    )

    def work(folder: Path) -> tuple[dict[str, Any], list[str]]:
        rng = np.random.default_rng(student.seed)
        picked = np.sort(rng.permutation(len(job.data.train))[:count])
        split = ResidentSplit(job.data.train.batch(picked), job.data.train.labels[picked])
        graph = fold_batch_norms(trace(load_student(job, student)))
        offered = [o for o in offers(graph, section, scheme) if not o.rule]
        path = folder / _DONE
        done: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
        todo = [o for o in offered if o.layer not in done]

        def loss(module: nn.Module) -> float:
            return evaluate(module, split, job.task).loss

        title = f"sensitivity, seed {student.seed}"
        with job.progress.bar(title, len(offered), len(done)) as bar:
            for layer, found in loss_increases(graph, todo, section, scheme, loss):
                done[layer] = {str(bits): increase for bits, increase in found.items()}
                atomic_write(path, json.dumps(done))
                bar.advance(1, layer)
        return {"increases": {o.layer: done[o.layer] for o in offered}}, []

    stage = job.run.stage(f"sensitivity/seed-{student.seed}", needs, work)
    found: dict[str, dict[str, float]] = stage.result["increases"]
    return found
