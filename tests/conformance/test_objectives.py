from __future__ import annotations

from collections.abc import Callable

import pytest
from pydantic import ValidationError

from edgekd.distill.objectives._contract import OBJECTIVES, Objective
from edgekd.testing.objectives import CHECKS, example_fields


@pytest.mark.parametrize("name", OBJECTIVES.names())
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_every_objective_keeps_the_contract(name: str, check: Callable[[Objective], None]) -> None:
    cls = OBJECTIVES.get(name)
    check(cls(**example_fields(cls)))


@pytest.mark.parametrize("name", OBJECTIVES.names())
@pytest.mark.parametrize("weight", [-1.0, 0.0, float("nan"), float("inf")])
def test_a_weight_is_positive_and_finite(name: str, weight: float) -> None:
    cls = OBJECTIVES.get(name)
    with pytest.raises(ValidationError, match="weight"):
        cls(**{**example_fields(cls), "weight": weight})
