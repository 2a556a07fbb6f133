"""One step of a training: forward, objectives, backward, update."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from edgekd.core.errors import RecipeError
from edgekd.distill.objectives._contract import LOGITS
from edgekd.distill.optimizer import build_optimizer, set_rate
from edgekd.distill.precision import choose_precision, memory_format, wants_channels_last
from edgekd.distill.taps import Taps

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from edgekd.distill.objectives._contract import Objective
    from edgekd.distill.settings import TrainSettings


class Stepper:
    """A network with its optimizer, objectives and projectors; a context manager.

    Not compiled: torch.compile needs a C++ compiler on the user's machine;
    bench/bench_training_speed.py times what it would gain.

    Args:
        model: Trained in place; until the context ends it has the training's memory format.
        settings: How to train.
        objectives: Terms of the loss.
        input_shape: Of one sample.
        teacher_shapes: Shape of one sample of each teacher tap.
        seed: Of the projectors' first weights and of dropout.

    Attributes:
        projectors: By position of their objective.
        precision: In which forward and backward run; weights and updates are always float32.

    Raises:
        RecipeError: A tap does not exist, or student and teacher taps do not fit.
    """

    def __init__(
        self,
        model: nn.Module,
        settings: TrainSettings,
        objectives: Sequence[Objective],
        *,
        input_shape: tuple[int, ...],
        teacher_shapes: Mapping[str, tuple[int, ...]],
        seed: int,
    ) -> None:
        self.model, self.settings, self.objectives, self.seed = model, settings, objectives, seed
        self.precision = choose_precision(settings, model, input_shape)
        self.channels_last = wants_channels_last(settings, model) and len(input_shape) == 3
        names = {name for o in objectives for name in o.student_taps if name != LOGITS}
        self.taps = Taps(model, sorted(names), owner="student")
        shapes = self._student_shapes(input_shape)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.projectors = _projectors(objectives, shapes, teacher_shapes)
        # before the optimizer makes its state, so that state and weights share a layout
        model.to(memory_format=memory_format(self.channels_last))  # type: ignore[call-overload]
        self._parameters = [*model.parameters(), *self.projectors.parameters()]
        self.optimizer = build_optimizer(settings, self._parameters)

    def __enter__(self) -> Stepper:
        return self

    def __exit__(self, *exc: object) -> None:
        self.model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]

    def run(
        self,
        inputs: Tensor,
        labels: Tensor,
        teacher: Mapping[str, Tensor],
        *,
        step: int,
        rate_factor: float,
    ) -> Tensor:
        """Update the weights once.

        Args:
            inputs: (B, *input_shape).
            labels: (B,).
            teacher: Teacher taps of the same samples.
            step: Counted over the whole training; decides which features dropout drops.
            rate_factor: Share of the peak learning rate.

        Returns:
            The loss, a scalar without gradient.
        """
        torch.default_generator.manual_seed((self.seed * 1_000_003 + step) % 2**63)
        if self.channels_last:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        low = self.precision == "bfloat16"
        with self.taps, torch.autocast("cpu", torch.bfloat16, enabled=low):
            seen = {LOGITS: self.model(inputs), **self.taps.collect()}
        loss = self.loss(seen, teacher, labels)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if self.settings.clip_norm is not None:
            nn.utils.clip_grad_norm_(self._parameters, self.settings.clip_norm)
        set_rate(self.optimizer, self.settings.learning_rate * rate_factor)
        self.optimizer.step()
        return loss.detach()

    def loss(
        self, student: Mapping[str, Tensor], teacher: Mapping[str, Tensor], labels: Tensor
    ) -> Tensor:
        """The weighted sum of all terms, in float32."""
        student = {name: tap.float() for name, tap in student.items()}
        total = torch.zeros(())
        for position, objective in enumerate(self.objectives):
            mine = student
            if str(position) in self.projectors:
                (tap,) = objective.student_taps
                mine = {**student, tap: self.projectors[str(position)](student[tap])}
            total = total + objective.weight * objective(mine, teacher, labels)
        return total

    def _student_shapes(self, input_shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        """Shape of one sample of every student tap, from one pass that changes nothing."""
        modes = [(layer, layer.training) for layer in self.model.modules()]
        self.model.eval()
        try:
            with torch.no_grad(), self.taps:
                logits = self.model(torch.zeros(1, *input_shape))
                seen = {LOGITS: logits, **self.taps.collect()}
        finally:
            for layer, training in modes:
                layer.training = training
        return {name: tuple(tap.shape[1:]) for name, tap in seen.items()}


def _projectors(
    objectives: Sequence[Objective],
    student: Mapping[str, tuple[int, ...]],
    teacher: Mapping[str, tuple[int, ...]],
) -> nn.ModuleDict:
    built: dict[str, nn.Module] = {}
    for position, objective in enumerate(objectives):
        for name in objective.teacher_taps:
            if name not in teacher:
                raise RecipeError(
                    f"{type(objective).__name__} reads {name!r} of the teacher,"
                    " and its outputs are not at hand.",
                    expected="a teacher, with its outputs stored for every tap",
                    got=", ".join(teacher) or "a training without a teacher",
                )
        make: Any = getattr(objective, "projector", None)
        if make is None:
            continue
        (student_tap,), (teacher_tap,) = objective.student_taps, objective.teacher_taps
        projector = make(student[student_tap], teacher[teacher_tap])
        if projector is not None:
            built[str(position)] = projector
    return nn.ModuleDict(built)
