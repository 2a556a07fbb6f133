"""The conformance suites must fail for a plugin that breaks the contract."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from edgekd.distill.objectives._contract import LOGITS
from edgekd.students._contract import NetSpec
from edgekd.testing import families, objectives


class _Objective:
    weight = 1.0
    zero_at_teacher: ClassVar[bool] = False
    student_taps = (LOGITS,)
    teacher_taps = (LOGITS,)

    def __call__(
        self, student: Mapping[str, Tensor], teacher: Mapping[str, Tensor], labels: Tensor
    ) -> Tensor:
        return self.value(student[LOGITS].float(), teacher[LOGITS].float())

    def value(self, s: Tensor, t: Tensor) -> Tensor:
        return (s - t.detach()).square().mean()


class _Unscalar(_Objective):
    def value(self, s: Tensor, t: Tensor) -> Tensor:
        return (s - t.detach()).square().mean(1)


class _Infinite(_Objective):
    def value(self, s: Tensor, t: Tensor) -> Tensor:
        return s.exp().mean()


class _TrainsTheTeacher(_Objective):
    def value(self, s: Tensor, t: Tensor) -> Tensor:
        return (s - t).square().mean()


class _IgnoresTheStudent(_Objective):
    def value(self, s: Tensor, t: Tensor) -> Tensor:
        return (s * 0).sum() + t.detach().sum()


class _NotZero(_Objective):
    zero_at_teacher: ClassVar[bool] = True

    def value(self, s: Tensor, t: Tensor) -> Tensor:
        return (s - t.detach()).square().mean() + 1


class _Sums(_Objective):
    def value(self, s: Tensor, t: Tensor) -> Tensor:
        return (s - t.detach()).square().sum()


class _PrefersTheFirst(_Objective):
    def value(self, s: Tensor, t: Tensor) -> Tensor:
        return (s - t.detach()).square().mean(1)[0]


class _StaysLow(_Objective):
    def __call__(
        self, student: Mapping[str, Tensor], teacher: Mapping[str, Tensor], labels: Tensor
    ) -> Tensor:
        return student[LOGITS].square().mean()


class _ChangesInputs(_Objective):
    def value(self, s: Tensor, t: Tensor) -> Tensor:
        return t.sub_(s).square().mean()


@pytest.mark.parametrize(
    ("broken", "check"),
    [
        (_Unscalar, objectives.is_finite_and_scalar),
        (_Infinite, objectives.is_finite_and_scalar),
        (_TrainsTheTeacher, objectives.reaches_the_student_only),
        (_IgnoresTheStudent, objectives.reaches_the_student_only),
        (_NotZero, objectives.vanishes_at_the_teacher),
        (_Sums, objectives.averages_over_the_batch),
        (_PrefersTheFirst, objectives.ignores_the_order_of_samples),
        (_StaysLow, objectives.works_in_bfloat16),
        (_ChangesInputs, objectives.leaves_its_inputs_alone),
    ],
)
def test_a_broken_objective_is_caught(broken: type[_Objective], check: Any) -> None:
    check(_Objective())
    with pytest.raises(AssertionError):
        check(broken())


class _Net(nn.Module):
    def __init__(self, outputs: int = 3) -> None:
        super().__init__()
        self.flatten, self.relu = nn.Flatten(), nn.ReLU()
        self.first, self.head = nn.Linear(16, 8), nn.Linear(8, outputs)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.relu(self.first(self.flatten(x))))
        return out


class _Branches(_Net):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.sum() > 0 else -x)


class _Idle(_Net):
    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Linear(2, 2)


class _Twice(_Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.relu(super().forward(x))


class _Fixed(_Net):
    def __init__(self) -> None:
        super().__init__()
        for parameter in self.parameters():
            nn.init.constant_(parameter, 0.1)


class _Family:
    def __init__(self, make: Any) -> None:
        self.make = make

    def build(self, spec: NetSpec) -> nn.Module:
        net: nn.Module = self.make()
        return net


@pytest.mark.parametrize(
    ("broken", "check"),
    [
        (lambda: _Net(outputs=4), families.gives_logits),
        (_Fixed, families.is_initialised_by_the_seed),
        (_Idle, families.trains_every_parameter),
        (_Idle, families.has_a_known_cost),
        (_Twice, families.has_one_layer_per_place),
    ],
)
def test_a_broken_family_is_caught(broken: Any, check: Any) -> None:
    spec = NetSpec((1, 4, 4), 3)
    check(_Family(_Net), spec)
    with pytest.raises(AssertionError):
        check(_Family(broken), spec)


@pytest.mark.parametrize("check", [families.is_traceable, families.is_exportable])
def test_a_family_with_branches_is_caught(check: Any) -> None:
    spec = NetSpec((1, 4, 4), 3)
    check(_Family(_Net), spec)
    # torch's own errors name the line; which of its classes they are changes between versions
    with pytest.raises(Exception, match=r"control flow|data-dependent|[Cc]ould not"):
        check(_Family(_Branches), spec)
    assert torch.is_grad_enabled()
