"""Points of codebooks shared out between layers: the gradients, measured, and the shares."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from edgekd.quantize.fold import fold_batch_norms, trace
from edgekd.quantize.redistribute import gradient_norms, pointed_layers, shared_points
from edgekd.report import layer_bits
from edgekd.steps.learn import load_student

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor

    from edgekd.core.types import Scheme
    from edgekd.recipe import QuantizeSection
    from edgekd.steps.choose import Trained, TrainedArm
    from edgekd.steps.job import Job


@dataclass(frozen=True, slots=True)
class Shared:
    """Points of one layer's codebook.

    Attributes:
        layer: Dotted path in the graph.
        norm: Of the layer's mean gradient, mean over the seeds.
        before: Points that its quantizer has.
        after: Points that it got.
    """

    layer: str
    norm: float
    before: int
    after: int


def with_shared_points(
    job: Job, kept: TrainedArm, scheme: Scheme, section: QuantizeSection
) -> tuple[QuantizeSection, tuple[Shared, ...]]:
    """The section with the points of each layer written out as rules, and those points.

    The norms are means over the seeds, so that every seed's file has the same size. Left alone
    where the recipe does not ask.
    """
    if section.redistribute_batches == 0:
        return section, ()
    graph = fold_batch_norms(trace(load_student(job, kept.students[0])))
    layers = pointed_layers(graph, section, scheme)
    paths = [x.layer for x in layers]
    measured = [_norms(job, student, section, paths) for student in kept.students]
    mean = {path: fmean(m[path] for m in measured) for path in paths}
    before = {x.layer: x.quantizer.point_count for x in layers}
    points = shared_points(mean, before)
    job.progress.say(
        "points by gradient norm: "
        + ", ".join(f"{path} {points[path]} (norm {mean[path]:.3g})" for path in paths)
    )
    rules = (*section.rules, *(x.rule(points[x.layer]) for x in layers))
    changed = section.model_copy(update={"rules": rules, "redistribute_batches": 0})
    return changed, tuple(Shared(x, mean[x], before[x], points[x]) for x in paths)


def reported(job: Job, shared: tuple[Shared, ...], scheme: str) -> layer_bits.SharedPoints:
    """The points for the report; `scheme` is empty where there is only one."""
    section = job.recipe.quantize
    seen = min(section.redistribute_batches * section.train.batch_size, len(job.data.train))
    layers = tuple(layer_bits.LayerPoints(**asdict(x)) for x in shared)
    return layer_bits.SharedPoints(scheme=scheme, samples=seen, layers=layers)


def _norms(
    job: Job, student: Trained, section: QuantizeSection, paths: list[str]
) -> dict[str, float]:
    """Layer -> gradient norm on train samples, for one seed."""
    size, wanted = section.train.batch_size, section.redistribute_batches
    needs = job.needs(
        student=student.sha256, layers=paths, batches=wanted, batch_size=size, seed=student.seed
    )

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        order = np.random.default_rng(student.seed).permutation(len(job.data.train))
        for first in range(0, min(size * wanted, len(order)), size):
            picked = np.sort(order[first : first + size])
            inputs = torch.from_numpy(job.data.train.batch(picked))
            yield inputs, torch.from_numpy(job.data.train.labels[picked])

    def work(_folder: Path) -> tuple[dict[str, Any], list[str]]:
        graph = fold_batch_norms(trace(load_student(job, student))).eval()
        return {"norms": gradient_norms(graph, paths, batches(), F.cross_entropy)}, []

    stage = job.run.stage(f"gradients/seed-{student.seed}", needs, work)
    found: dict[str, float] = stage.result["norms"]
    return found
