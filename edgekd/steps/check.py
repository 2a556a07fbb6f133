"""What can be wrong about a training is found before the first one starts, not hours later."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from edgekd.core.errors import UnsupportedError
from edgekd.distill.augment import check_augment
from edgekd.distill.objectives._contract import LOGITS
from edgekd.distill.step import Stepper
from edgekd.export.onnx_file import refuse_native
from edgekd.export.storage import Stored, form
from edgekd.quantize.convert import granularity_for
from edgekd.quantize.fold import fold_batch_norms, trace
from edgekd.quantize.offers import budget_bytes, offers, with_bits
from edgekd.quantize.placement import place
from edgekd.steps.learn import build_student
from edgekd.steps.teach import listens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgekd.core.types import Scheme, Widths
    from edgekd.distill.objectives._contract import Objective
    from edgekd.distill.settings import TrainSettings
    from edgekd.numerics.groups import Granularity
    from edgekd.quantize.placement import Placement
    from edgekd.quantize.quantizers._contract import Quantizer
    from edgekd.quantize.settings import QuantizeSettings
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


def check_bits(job: Job) -> None:
    """Refuse bits that a target can neither compute nor store, before anything is trained.

    Raises:
        RecipeError: A rule matches no layer, or the weights do not fit into the budget for them.
        UnsupportedError: A target does not hold the bits of a layer or of its activations.
    """
    section: QuantizeSettings = job.recipe.quantize
    schemes = {t.name: t.scheme for t in job.targets if t.scheme is not None}
    if not schemes:
        return
    graph = fold_batch_norms(trace(build_student(job, job.recipe.seed)))
    in_float = section.activation_bits == "float"
    for target, scheme in schemes.items():
        if not in_float and section.activation_bits not in scheme.holds.activations:
            raise UnsupportedError(
                f"{target} has no kernel for activations of {section.activation_bits} bits.",
                expected=f"{_listed(scheme.holds.activations)} bits, or float",
                got=f"quantize.activation_bits: {section.activation_bits}",
                todo="change it, or take another target",
            )
        if not in_float:
            refuse_native(scheme)
        held_to = section.within(scheme.weight_bits)
        placement = place(graph, rules=held_to.placed_rules(), activations=not in_float)
        for path in placement.weights:
            layer: Any = graph.get_submodule(path)
            held = scheme.holds.matmul if isinstance(layer, nn.Linear) else scheme.holds.conv
            for quantizer, granularity in _quantizers(held_to, scheme, placement, path):
                if quantizer.bits in held.storage:
                    continue
                weight = layer.weight.detach().numpy()
                stored = Stored.of(weight, quantizer.encode(weight, granularity))
                if form(stored, held, in_float=in_float) is None:
                    raise _not_held(target, path, quantizer.bits, held)
        if held_to.mixed is not None and held_to.mixed.latency is None:
            budget_bytes(offers(graph, held_to, scheme), held_to)  # sizes need no training


def _quantizers(
    section: QuantizeSettings, scheme: Scheme, placement: Placement, path: str
) -> list[tuple[Quantizer, Granularity]]:
    """What the weights of a layer may be quantized by, and which of them share a scale."""
    shared, chosen = granularity_for(section, scheme), placement.chosen.get(path)
    if chosen is not None:
        return [(chosen.quantizer, chosen.granularity or shared)]
    if section.mixed is not None:
        return [(with_bits(section.weights, bits), shared) for bits in section.mixed.bits]
    return [(section.weights, shared)]


def _not_held(target: str, path: str, bits: int, held: Widths) -> UnsupportedError:
    return UnsupportedError(
        f"{target} cannot hold the {bits}-bit weights of the layer {path!r}.",
        expected=f"{_listed(held.kernel)} bits for integer kernels, that is whole steps of one"
        f" scale per channel or tensor; {_listed(held.storage)} bits for storage alone",
        got=f"{bits} bits",
        todo="change quantize.weights, the rule for this layer or quantize.mixed.bits, or take"
        " another target",
    )


def _listed(bits: Sequence[int]) -> str:
    return ", ".join(map(str, bits)) or "no"


def check_trainings(job: Job, taught: ScoredTeacher) -> None:
    """Refuse objectives and patterns that name what teacher or student do not have.

    Raises:
        RecipeError: There is no such layer, or two layers cannot be compared.
        UnsupportedError: The teacher is a black box, or the student cannot be quantized.
    """
    recipe = job.recipe
    student = build_student(job, recipe.seed)
    _check_objectives(job, taught, student, recipe.distill, recipe.distill.objectives)
    if all(target.scheme is None for target in job.targets):
        return
    graph = fold_batch_norms(trace(student))
    in_float = recipe.quantize.activation_bits == "float"
    place(graph, rules=recipe.quantize.placed_rules(), activations=not in_float)
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
