"""Budgets as a user writes them: ``p90<=2ms``, ``size<=64KiB``, ``accuracy_drop<=1pt``."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, PlainSerializer, model_validator

from edgekd.core.config import Config, nearest

_UNITS: dict[str, dict[str, float]] = {
    "ms": {"us": 1e-3, "ms": 1.0, "s": 1e3},
    "bytes": {
        "b": 1.0,
        "bytes": 1.0,
        "kb": 1e3,
        "mb": 1e6,
        "gb": 1e9,
        "kib": 1024.0,
        "mib": 1024.0**2,
        "gib": 1024.0**3,
    },
    "mib": {"mib": 1.0, "gib": 1024.0, "kib": 1 / 1024, "mb": 1e6 / 1024**2, "gb": 1e9 / 1024**2},
    "pt": {"pt": 1.0, "pts": 1.0, "point": 1.0, "points": 1.0},
}
#: budget name -> unit its limit and value are stored in
BUDGET_UNITS = {
    "p50": "ms",
    "p90": "ms",
    "p95": "ms",
    "p99": "ms",
    "size": "bytes",
    "peak_memory": "mib",
    "accuracy_drop": "pt",
}
_PATTERN = re.compile(r"\s*(\w+)\s*<=\s*([+-]?[0-9][0-9.]*(?:[eE][+-]?[0-9]+)?)\s*(\S*)\s*")


class Budget(Config):
    """An upper limit on one figure of an artifact.

    Attributes:
        name: One of `BUDGET_UNITS`.
        limit: In the unit that `BUDGET_UNITS` gives: ms, bytes, MiB, or accuracy points
            (hundredths of the metric) lost against the teacher.
        text: As the user wrote it.
    """

    name: str
    limit: float
    text: str

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        _check(self.name, self.limit, self.text)
        return self

    @property
    def unit(self) -> str:
        """Unit of `limit`."""
        return BUDGET_UNITS[self.name]


def parse_budget(value: Any) -> Any:
    """``"p90<=2ms"`` -> Budget; anything but text is passed through.

    Raises:
        ValueError: The text is not a budget (pydantic gives it the field's path).
    """
    if not isinstance(value, str):
        return value
    match = _PATTERN.fullmatch(value)
    if not match:
        raise ValueError(f"not a budget: {value!r}; write it like 'p90<=2ms' or 'size<=64KiB'")
    name, number, unit = match.groups()
    _check(name, 1.0, value)
    factors = _UNITS[BUDGET_UNITS[name]]
    if unit.lower() not in factors:
        what = f"is not given in {unit!r}" if unit else "needs a unit"
        raise ValueError(f"{name} {what}{nearest(unit.lower(), factors)}")
    try:
        limit = float(number) * factors[unit.lower()]
    except ValueError as e:
        raise ValueError(f"not a number in the budget {value!r}: {number!r}") from e
    if not math.isfinite(limit):
        raise ValueError(f"not a number in the budget {value!r}: {number!r}")
    _check(name, limit, value)
    return Budget(name=name, limit=limit, text=value.strip())


def _check(name: str, limit: float, text: str) -> None:
    if name not in BUDGET_UNITS:
        raise ValueError(f"no budget named {name!r}{nearest(name, BUDGET_UNITS)}")
    # a student may be asked to be as good as its teacher, or better; but nothing takes no time
    if limit <= 0 and name != "accuracy_drop":
        raise ValueError(f"the budget {text!r} can never be met; give more than 0")


#: a recipe field: read from text, written back as the same text
BudgetText = Annotated[
    Budget, BeforeValidator(parse_budget), PlainSerializer(lambda b: b.text, return_type=str)
]


def _parse_size(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return int(parse_budget(f"size<={value}").limit)
    except ValueError as e:
        raise ValueError(f"not a size: {value!r}; write it like '31KiB'") from e


#: a recipe field: bytes, read from a number or from text such as ``31KiB``
SizeBytes = Annotated[int, BeforeValidator(_parse_size), Field(ge=1)]


def _parse_latency(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return parse_budget(f"p50<={value}").limit
    except ValueError as e:
        raise ValueError(f"not a latency: {value!r}; write it like '2ms'") from e


#: a recipe field: milliseconds, read from a number or from text such as ``850us``
Milliseconds = Annotated[float, BeforeValidator(_parse_latency), Field(gt=0)]
