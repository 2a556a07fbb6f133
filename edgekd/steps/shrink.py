"""The integer arms: post-training, with and without the teacher, and which is kept."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgekd.distill.objectives._contract import OBJECTIVES
from edgekd.quantize import store
from edgekd.quantize.fold import fold_batch_norms, trace
from edgekd.steps.choose import Choice, Trained, TrainedArm, choose
from edgekd.steps.learn import build_student
from edgekd.steps.mix import Chosen, allocation, resolved
from edgekd.steps.points import Shared, with_shared_points
from edgekd.steps.quantized import calibrated, refined
from edgekd.steps.teach import listens
from edgekd.steps.tune import tuned
from edgekd.steps.watch import Watch

if TYPE_CHECKING:
    from edgekd.core.types import QuantizedStudent, Scheme
    from edgekd.recipe import QuantizeSection
    from edgekd.steps.job import Job
    from edgekd.steps.teach import ScoredTeacher


@dataclass(frozen=True, slots=True)
class IntegerArms:
    """All integer arms for one scheme.

    Attributes:
        scheme: Whose codes they hold.
        arms: post_training; then, as far as the recipe asks for them, quantized_control (trained
            through the rounding on labels alone) and quantized_distillation.
        choice: Among them.
        allocation: Bits of each layer, where the recipe asks for mixed precision.
        points: Of the layers' codebooks, where the recipe asks to share them out.
    """

    scheme: Scheme
    arms: tuple[TrainedArm, ...]
    choice: Choice
    allocation: Chosen | None = None
    points: tuple[Shared, ...] = ()

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
    section = job.recipe.quantize.within(scheme.weight_bits)
    section, points = with_shared_points(job, kept, scheme, resolved(section, bits))
    plain = TrainedArm(
        "post_training", tuple(calibrated(job, s, scheme, section) for s in kept.students)
    )
    arms, choice = [plain], Choice(plain, "the only one asked for")
    if section.method == "quantized_distillation":
        control = _control(job, kept, taught, scheme, section)
        found = tuned(job, kept, taught, scheme, section)
        trained = _distilled(job, kept, taught, scheme, found.section, control)
        trained = replace(trained, note=found.note)
        for arm in filter(None, (control, trained)):
            arms.append(arm)
            choice = _chosen(job, choice, arm)
    return IntegerArms(scheme, tuple(arms), choice, bits, points)


def _chosen(job: Job, before: Choice, arm: TrainedArm) -> Choice:
    """Between what was kept so far and one more arm; an arm that was given up is not kept."""
    if arm.stopped:
        return Choice(before.kept, f"{before.reason}; distillation was {arm.stopped}")
    return choose(before.kept, arm, job.task, samples=len(job.data.validation))


def _control(
    job: Job, kept: TrainedArm, taught: ScoredTeacher, scheme: Scheme, section: QuantizeSection
) -> TrainedArm | None:
    """The same training on labels alone; None where it would prove nothing, or is not wanted."""
    wanted = section.few_bits() if section.control == "auto" else section.control
    if not wanted or not listens(section.objectives):
        return None
    labels_only = (OBJECTIVES.build("hard_label"),)
    return TrainedArm(
        "quantized_control",
        tuple(
            refined(
                job, s, scheme, section, taught, name="quantized_control", objectives=labels_only
            )
            for s in kept.students
        ),
    )


def _distilled(
    job: Job,
    kept: TrainedArm,
    taught: ScoredTeacher,
    scheme: Scheme,
    section: QuantizeSection,
    control: TrainedArm | None,
) -> TrainedArm:
    """The recipe's training; given up at the first seed that its control arm leaves behind."""
    students: list[Trained] = []
    for source in kept.students:
        watch = None
        if control is not None and section.stop_after is not None:
            watch = Watch(
                controls=tuple(tuple(s.history) for s in control.students),
                paired=kept.students.index(source),
                task=job.task,
                samples=len(job.data.validation),
                patience=section.stop_after,
            )
        found = refined(
            job,
            source,
            scheme,
            section,
            taught,
            name="quantized_distillation",
            objectives=section.objectives,
            watch=watch,
        )
        students.append(found)
        if found.stopped:
            break
    return TrainedArm("quantized_distillation", tuple(students))
