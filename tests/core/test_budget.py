from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from edgekd.core.budget import BUDGET_UNITS, Budget, BudgetText, parse_budget

BUDGET: TypeAdapter[Budget] = TypeAdapter(BudgetText)


@pytest.mark.parametrize(
    ("text", "name", "limit"),
    [
        ("p90<=2ms", "p90", 2.0),
        ("p50 <= 800us", "p50", 0.8),
        ("  p99<=1.5e-3 s ", "p99", 1.5),
        ("p95<=+2MS", "p95", 2.0),
        ("size<=64KiB", "size", 65536.0),
        ("size<=1.5MB", "size", 1_500_000.0),
        ("size<=100bytes", "size", 100.0),
        ("peak_memory<=300MiB", "peak_memory", 300.0),
        ("peak_memory<=1GiB", "peak_memory", 1024.0),
        ("accuracy_drop<=1pt", "accuracy_drop", 1.0),
        ("accuracy_drop<=0pt", "accuracy_drop", 0.0),
        ("accuracy_drop<=-0.5points", "accuracy_drop", -0.5),
    ],
)
def test_budgets_are_read_into_their_unit(text: str, name: str, limit: float) -> None:
    budget = parse_budget(text)
    assert (budget.name, budget.text) == (name, text.strip())
    assert budget.limit == pytest.approx(limit, rel=1e-15)
    assert budget.unit == BUDGET_UNITS[name]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("p90<2ms", "not a budget: 'p90<2ms'; write it like 'p90<=2ms' or 'size<=64KiB'"),
        ("p90=2ms", "not a budget: 'p90=2ms'"),
        ("", "not a budget: ''"),
        ("p90<=ms", "not a budget: 'p90<=ms'"),
        ("p90<=nanms", "not a budget: 'p90<=nanms'"),
        ("peak_memory<=9kb", "peak_memory is not given in 'kb'. Did you mean"),
        ("p90<=2", "p90 needs a unit. Known: ms, s, us"),
        ("p90<=2MiB", "p90 is not given in 'MiB'. Known: ms, s, us"),
        ("size<=64KiBs", "size is not given in 'KiBs'. Did you mean 'kib'? Known: b, bytes"),
        ("accuracy_drop<=1%", "accuracy_drop is not given in '%'. Known: point, points, pt, pts"),
        ("p9<=2ms", "no budget named 'p9'. Did you mean 'p9"),
        ("P90<=2ms", "no budget named 'P90'. Did you mean 'p90'?"),
        ("p90<=1.2.3ms", "not a number in the budget 'p90<=1.2.3ms': '1.2.3'"),
        ("p90<=1e999ms", "not a number in the budget 'p90<=1e999ms': '1e999'"),
        ("p90<=0ms", "the budget 'p90<=0ms' can never be met; give more than 0"),
        ("size<=-1KiB", "the budget 'size<=-1KiB' can never be met; give more than 0"),
    ],
)
def test_what_is_no_budget_is_explained(text: str, complaint: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # its whole text is compared
        parse_budget(text)
    assert str(caught.value).startswith(complaint)
    with pytest.raises(ValidationError) as wrapped:
        BUDGET.validate_python(text)
    assert wrapped.value.error_count() == 1
    assert wrapped.value.errors()[0]["msg"].removeprefix("Value error, ").startswith(complaint)


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ({"name": "p9", "limit": 1, "text": "x"}, "no budget named 'p9'"),
        ({"name": "p90", "limit": 0, "text": "x"}, "can never be met"),
        ({"name": "p90", "limit": math.inf, "text": "x"}, "finite number"),
        (3, "Input should be a valid dictionary or instance of Budget"),
    ],
)
def test_a_budget_built_in_python_is_checked_too(value: Any, complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        BUDGET.validate_python(value)


def test_a_recipe_field_is_written_back_as_the_user_wrote_it() -> None:
    assert BUDGET.dump_python(BUDGET.validate_python(" p90 <= 2 ms ")) == "p90 <= 2 ms"


@given(
    name=st.sampled_from(sorted(BUDGET_UNITS)),
    number=st.floats(1e-6, 1e12, allow_nan=False),
)
def test_any_positive_number_in_the_budgets_own_unit_is_kept_exactly(
    name: str, number: float
) -> None:
    budget = parse_budget(f"{name}<={number!r}{BUDGET_UNITS[name]}")
    assert budget.limit == number
    assert parse_budget(budget.text) == budget


@given(text=st.text(max_size=20))
def test_any_text_is_a_budget_or_a_value_error(text: str) -> None:
    try:
        budget = parse_budget(text)
    except ValueError:
        return
    assert math.isfinite(budget.limit)
