"""Budgets as a user writes them: ``p90<=2ms``, ``size<=64KiB``, ``accuracy_drop<=1pt``."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer

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
_PATTERN = re.compile(r"^\s*([a-z0-9_]+)\s*<=\s*([0-9.eE+-]+)\s*([a-zA-Z]+)\s*$")


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
    match = _PATTERN.match(value)
    if not match:
        raise ValueError(f"not a budget: {value!r}; write it like 'p90<=2ms' or 'size<=64KiB'")
    name, number, unit = match.groups()
    if name not in BUDGET_UNITS:
        raise ValueError(f"no budget named {name!r}{nearest(name, list(BUDGET_UNITS))}")
    factors = _UNITS[BUDGET_UNITS[name]]
    if unit.lower() not in factors:
        raise ValueError(f"{name} is not given in {unit!r}{nearest(unit.lower(), list(factors))}")
    try:
        limit = float(number) * factors[unit.lower()]
    except ValueError as e:
        raise ValueError(f"not a number in the budget {value!r}: {number!r}") from e
    return Budget(name=name, limit=limit, text=value.strip())


#: a recipe field: read from text, written back as the same text
BudgetText = Annotated[
    Budget, BeforeValidator(parse_budget), PlainSerializer(lambda b: b.text, return_type=str)
]
