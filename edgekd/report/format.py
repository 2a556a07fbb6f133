"""Numbers as people read them: unit, separators, and only the digits that mean something.

Every function gives plain text with ordinary spaces. What is printed in HTML goes through `thin`,
so that a number is never broken from its unit.
"""

from __future__ import annotations

import re
from typing import Any

NARROW_SPACE = "\u202f"
MINUS = "\u2212"
_SIGNIFICANT = 3
_BEFORE_UNIT = re.compile(r"(?<=\d) (?=(?:µs|ms|s|min|h|B|KiB|MiB|GiB|%|pt|k|M|G|T)(?!\w))")
#: what rounds to 1,000 moves on to the next unit: 0.99996 is "1.00 ms" and never "1,000 µs"
_CARRY = 999.5


def duration(ms: float, *, exact: bool = False) -> str:
    """A latency given in ms: ``0.0312 -> '31.2 µs'``, ``2.31 -> '2.31 ms'``, ``1500 -> '1.50 s'``.

    Args:
        ms: Milliseconds.
        exact: A limit somebody wrote: no zeros added, no digits lost (``2 -> '2 ms'``).
    """
    for unit, factor in (("µs", 1e3), ("ms", 1.0)):
        if abs(ms) * factor < (1000 if exact else _CARRY):
            return f"{_number(ms * factor, exact)} {unit}"
    return f"{_number(ms / 1e3, exact)} s"


def size(size_bytes: float, *, exact: bool = False) -> str:
    """Bytes: ``11469 -> '11.2 KiB'``, ``832 -> '832 B'``; powers of 1024."""
    if abs(size_bytes) < 1024:
        return f"{_number(size_bytes, True)} B"
    return _scaled(size_bytes, 1024, ("KiB", "MiB", "GiB"), exact)


def memory(mib: float, *, exact: bool = False) -> str:
    """Mebibytes: ``183.4 -> '183 MiB'``."""
    return size(mib * 1024**2, exact=exact)


def count(n: float) -> str:
    """``1024 -> '1,024'``, ``1234567 -> '1.23 M'``: parameters, multiply-accumulates, samples."""
    if abs(n) < 100_000:
        return f"{n:,.0f}"
    return _scaled(n, 1000, ("k", "M", "G", "T"), False)


def percent(fraction: float, digits: int = 2) -> str:
    """``0.98611 -> '98.61 %'``; only a true 1 is '100 %', anything just below is '>99.99 %'."""
    if fraction == 1:
        return "100 %"
    text = f"{fraction * 100:.{digits}f}"
    top = f"{100:.{digits}f}"
    if text == top and fraction < 1:
        return f">{100 - 10**-digits:.{digits}f} %"
    return f"{_minus(text)} %"


def points(value: float, *, signed: bool = False, exact: bool = False) -> str:
    """Accuracy points: ``0.278 -> '0.28 pt'``; signed gives '+0.28 pt' and a real minus sign."""
    if exact:
        return f"{_number(value, True)} pt"
    rounded = round(value, 2) + 0.0  # + 0.0 turns -0.0 into 0.0
    return f"{_minus(f'{rounded:+.2f}' if signed and rounded else f'{rounded:.2f}')} pt"


def ratio(value: float) -> str:
    """``7.44 -> '7.4×'``, ``74.4 -> '74×'``, ``0.53 -> '0.53×'``."""
    if value < 1:
        return f"{value:.2f}×"
    return f"{value:.1f}×" if round(value, 1) < 10 else f"{value:,.0f}×"


def difference(value: float) -> str:
    """A numeric distance: ``0 -> '0'``, ``3.1e-05 -> '3.1e-5'``, ``0.0312 -> '0.0312'``."""
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e4:
        return _number(value, False)
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def seconds(value: float) -> str:
    """``0.034 -> '0.03 s'``, ``41.2 -> '41 s'``, ``125 -> '2 min 05 s'``, in hours from 3600."""
    if round(value, 2) < 10:
        return f"{value:.2f} s"
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(whole / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def microseconds(value: float) -> str:
    """A difference in time: ``3.21 -> '+3.2 us'``, with a real minus sign."""
    return _minus(f"{value + 0.0:+,.1f} us")


def in_unit(value: float, unit: str, *, exact: bool = False) -> str:
    """A budget's limit or value in the unit that its name carries (`core.budget.BUDGET_UNITS`)."""
    writers = {"ms": duration, "bytes": size, "mib": memory, "pt": points}
    return (
        writers[unit](value, exact=exact) if unit in writers else f"{_number(value, exact)} {unit}"
    )


def short_hash(sha256: str) -> str:
    """The first twelve digits: enough to compare by eye, the whole is in the JSON."""
    return sha256[:12]


def plural(n: int, one: str, many: str = "") -> str:
    """``1 -> '1 budget'``, ``4 -> '4 budgets'``."""
    return f"{count(n)} {one if n == 1 else many or one + 's'}"


def thin(text: Any) -> str:
    """For HTML: spaces become narrow ones that don't break."""
    return str(text).replace(" ", NARROW_SPACE)


def glued(sentence: str) -> str:
    """For HTML: the same, but only between a number and its unit inside a sentence."""
    return _BEFORE_UNIT.sub(NARROW_SPACE, sentence)


def _scaled(value: float, step: int, units: tuple[str, ...], exact: bool) -> str:
    """Divide by `step` until the number has three digits or the units run out."""
    last = len(units) - 1
    power = next(
        (i for i in range(last) if abs(value) / step ** (i + 1) < (1000 if exact else _CARRY)),
        last,
    )
    return f"{_number(value / step ** (power + 1), exact)} {units[power]}"


def _number(value: float, exact: bool) -> str:
    if exact or value == 0:
        return _minus(f"{value:,.10g}")
    whole = len(f"{abs(_rounded(value)):.0f}")
    if abs(value) < 1:
        text = f"{value:#.{_SIGNIFICANT}g}"
        return _minus(text if "e" not in text else f"{value:.3g}")
    return _minus(f"{value:,.{max(_SIGNIFICANT - whole, 0)}f}")


def _rounded(value: float) -> float:
    return float(f"{value:.{_SIGNIFICANT}g}")


def _minus(text: str) -> str:
    return text.replace("-", MINUS)
