"""What every distillation objective must do, as checks that a plugin author runs too.

::

    @pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
    def test_my_objective(check):
        check(MyObjective(...))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from edgekd.distill.objectives._contract import LOGITS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edgekd.distill.objectives._contract import Objective

_BATCH, _CLASSES, _MAP = 8, 5, (6, 4, 4)


def example_fields(cls: type[Any]) -> dict[str, Any]:
    """Fields to build a plugin with: required ones take the first of their pydantic `examples`."""
    fields = {}
    for name, info in cls.model_fields.items():
        if info.is_required():
            assert info.examples, f"give the field {name!r} an example: Field(examples=[…])"
            fields[name] = info.examples[0]
    return fields


def is_finite_and_scalar(objective: Objective) -> None:
    """A scalar, float32, finite, also for logits of a thousand."""
    for scale in (0.0, 1.0, 1000.0):
        student, teacher, labels = _sample(objective)
        loss = objective(
            {n: t.detach() * scale for n, t in student.items()},
            {n: t * scale for n, t in teacher.items()},
            labels,
        )
        assert loss.ndim == 0, f"shape {tuple(loss.shape)} instead of a scalar"
        assert loss.dtype == torch.float32, f"{loss.dtype} instead of float32"
        assert torch.isfinite(loss), f"{loss.item()} for activations of size {scale:g}"


def reaches_the_student_only(objective: Objective) -> None:
    """A gradient for every tap of the student that it names, none for the teacher's."""
    student, teacher, labels = _sample(objective)
    teacher = {n: t.requires_grad_() for n, t in teacher.items()}
    objective(student, teacher, labels).backward()  # type: ignore[no-untyped-call]
    for name in objective.student_taps:
        gradient = student[name].grad
        assert gradient is not None, f"no gradient for the student's {name!r}"
        assert gradient.abs().sum() > 0, f"a gradient of zero for the student's {name!r}"
    for name, tap in teacher.items():
        assert tap.grad is None, f"a gradient for the teacher's {name!r}"


def vanishes_at_the_teacher(objective: Objective) -> None:
    """With `zero_at_teacher`: value and gradient are zero there, the value positive elsewhere."""
    if not getattr(objective, "zero_at_teacher", False):
        return
    student, teacher, labels = _sample(objective)
    assert objective(student, teacher, labels).item() > 0, "not positive away from the teacher"
    same = {
        s: teacher[t].clone().requires_grad_()
        for s, t in zip(objective.student_taps, objective.teacher_taps, strict=True)
    }
    loss = objective(same, teacher, labels)
    assert abs(loss.item()) < 1e-6, f"{loss.item()} where student and teacher are equal"
    loss.backward()  # type: ignore[no-untyped-call]
    for name, tap in same.items():
        assert tap.grad is not None
        assert tap.grad.abs().max() < 1e-6, f"a gradient for {name!r} where both are equal"


def averages_over_the_batch(objective: Objective) -> None:
    """A batch repeated has the same value: the term does not grow with the batch size."""
    student, teacher, labels = _sample(objective)
    once = objective(student, teacher, labels)
    twice = objective(_repeated(student), _repeated(teacher), torch.cat([labels, labels]))
    assert torch.allclose(once, twice, rtol=1e-5), f"{once.item()} became {twice.item()}"


def ignores_the_order_of_samples(objective: Objective) -> None:
    """The same samples in another order have the same value."""
    student, teacher, labels = _sample(objective)
    order = torch.arange(len(labels) - 1, -1, -1)
    there = objective(student, teacher, labels)
    back = objective(
        {n: t[order] for n, t in student.items()},
        {n: t[order] for n, t in teacher.items()},
        labels[order],
    )
    assert torch.allclose(there, back, rtol=1e-5), f"{there.item()} became {back.item()}"


def works_in_bfloat16(objective: Objective) -> None:
    """Under autocast, from bfloat16 activations: float32, and close to the exact value."""
    student, teacher, labels = _sample(objective)
    exact = objective(student, teacher, labels)
    with torch.autocast("cpu", torch.bfloat16):
        rough = objective({n: t.bfloat16() for n, t in student.items()}, teacher, labels)
    assert rough.dtype == torch.float32, f"{rough.dtype} instead of float32"
    # activations carry 8 bits (0.4 %); the value may amplify that a few times
    assert torch.allclose(exact, rough, rtol=0.05, atol=0.02), f"{exact.item()} vs {rough.item()}"


def leaves_its_inputs_alone(objective: Objective) -> None:
    """Activations are shared between objectives: none may change them in place."""
    student, teacher, labels = _sample(objective)
    before = {n: t.detach().clone() for n, t in student.items()}
    teacher_before = {n: t.clone() for n, t in teacher.items()}
    objective({n: t.detach() for n, t in student.items()}, teacher, labels)
    for name, tap in student.items():
        assert torch.equal(tap.detach(), before[name]), f"the student's {name!r} was changed"
    for name, tap in teacher.items():
        assert torch.equal(tap, teacher_before[name]), f"the teacher's {name!r} was changed"


#: every check; each takes an objective and raises AssertionError with a text
CHECKS: tuple[Callable[[Objective], None], ...] = (
    is_finite_and_scalar,
    reaches_the_student_only,
    vanishes_at_the_teacher,
    averages_over_the_batch,
    ignores_the_order_of_samples,
    works_in_bfloat16,
    leaves_its_inputs_alone,
)


def _sample(objective: Objective) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
    """Random taps of a student (with gradient) and a teacher, and labels."""
    draw = torch.Generator().manual_seed(0)

    def taps(names: tuple[str, ...]) -> dict[str, Tensor]:
        shapes = {n: (_BATCH, _CLASSES) if n == LOGITS else (_BATCH, *_MAP) for n in names}
        return {n: torch.randn(shape, generator=draw) for n, shape in shapes.items()}

    student = {n: t.requires_grad_() for n, t in taps(objective.student_taps).items()}
    teacher = taps(objective.teacher_taps)
    labels = torch.randint(_CLASSES, (_BATCH,), generator=draw)
    return student, teacher, labels


def _repeated(taps: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {n: torch.cat([t, t]) for n, t in taps.items()}
