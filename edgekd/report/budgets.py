"""Budgets against figures: what is met, what is missed, and by how much."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from edgekd.report import format as fmt
from edgekd.report.model import BudgetResult

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from edgekd.core.budget import Budget
    from edgekd.report.model import Latency, TargetResult

_UNMEASURED_MEMORY = "peak memory was not measured on this target"


def judge(
    budgets: Iterable[Budget],
    *,
    latency: Latency,
    size_bytes: int,
    peak_memory_mib: float | None,
    accuracy_drop_pt: float,
) -> tuple[BudgetResult, ...]:
    """Hold every budget against its figure, in the order they are given.

    A latency budget is judged by the certified percentile; one that is refused for too few
    samples is not met, with the refusal as its reason.

    Args:
        budgets: Upper limits.
        latency: Percentiles of the artifact, ms.
        size_bytes: Of the artifact's file.
        peak_memory_mib: None where it was not measured.
        accuracy_drop_pt: Points lost against the teacher; negative when the artifact is better.
    """
    results = []
    for budget in budgets:
        reason: str | None = None
        value: float | None
        if budget.name == "size":
            value = float(size_bytes)
        elif budget.name == "peak_memory":
            value = peak_memory_mib
            reason = _UNMEASURED_MEMORY if value is None else None
        elif budget.name == "accuracy_drop":
            # scores are fractions k/n: without rounding a drop of exactly 1 point comes out as
            # 1.0000000000000009 and misses its budget
            value = round(accuracy_drop_pt, 9)
        else:
            figure = getattr(latency, budget.name)
            value, reason = figure.certified, figure.reason
        results.append(
            BudgetResult(
                name=budget.name,
                limit=budget.limit,
                unit=budget.unit,
                value=value,
                met=value is not None and value <= budget.limit,
                reason=reason,
            )
        )
    return tuple(results)


def overrun(result: BudgetResult) -> float:
    """How far a budget is missed: 0 met, 0.15 is 15 % over, infinity where there is no figure.

    A limit of zero or below has no percentage; there it is the difference in the budget's unit.
    """
    if result.met:
        return 0.0
    if result.value is None:
        return math.inf
    over = result.value - result.limit
    return over / result.limit if result.limit > 0 else over


def worst_miss(target: TargetResult) -> BudgetResult | None:
    """The budget that this target misses by most; None where all are met."""
    missed = [b for b in target.budgets if not b.met]
    return max(missed, key=overrun) if missed else None


def describe_miss(result: BudgetResult, *, on: str = "") -> str:
    """``p90 2.31 ms against 2 ms, 15 % over``, or the reason why there is no figure."""
    name = title(result.name)
    against = f"against {fmt.in_unit(result.limit, result.unit, exact=True)}"
    where = f" on {on}" if on else ""
    if result.value is None:
        return f"{name} {against}{where} has no figure: {result.reason}"
    value = fmt.in_unit(result.value, result.unit)
    return f"{name} {value} {against}{where}, {_over(result, result.value)}"


def closest(targets: Sequence[TargetResult]) -> str | None:
    """The point nearest to success: the missed target whose worst miss is the smallest.

    A target with a refused figure comes after every target with figures. None if all are met.
    """
    misses = [(miss, t) for t in targets if (miss := worst_miss(t)) is not None]
    if not misses:
        return None
    miss, target = min(misses, key=lambda m: (overrun(m[0]), m[1].target))
    return f"closest: {describe_miss(miss, on=target.target)}"


def title(name: str) -> str:
    """A budget's name for people: ``peak_memory -> 'peak memory'``."""
    return name.replace("_", " ")


def _over(result: BudgetResult, value: float) -> str:
    if result.unit == "pt" or result.limit <= 0:  # per cent of points would be misread
        return f"{fmt.in_unit(value - result.limit, result.unit)} over"
    share = overrun(result)
    if share >= 10:
        return f"{fmt.ratio(value / result.limit)} the limit"
    return f"{share * 100:.0f} % over" if share >= 0.01 else f"{max(share * 100, 0.1):.1f} % over"
