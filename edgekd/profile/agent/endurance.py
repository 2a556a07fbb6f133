"""A long run: inferences back to back, all timed, in windows that show when a device tires."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

from .energy import SYS
from .machine import state
from .timing import NS_PER_S, Series, warm_up

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from .energy import EnergyCounter

WINDOWS = 60
#: samples that a piece holds at most, so that no run needs memory for all of its own
PIECE = 1 << 16


class Piece(NamedTuple):
    """A part of a window.

    Attributes:
        window: Its index.
        samples_ns: Every inference of this part, in order.
        reading: At the end of the window, ``temperature_c``, ``frequency_khz`` and the ``joules``
            that each counter has counted since the first timed inference; None before the end.
    """

    window: int
    samples_ns: list[int]
    reading: dict[str, Any] | None


def pieces(
    calls: Sequence[Callable[[], object]], duration_s: float, counters: Sequence[EnergyCounter]
) -> Iterator[Piece]:
    """Warm up, then run back to back; every window has one inference at least.

    Args:
        calls: One inference each; they take turns.
        duration_s: Of all windows together, seconds.
        counters: Of energy; one that wraps is read often enough, once a window.
    """
    clock, kinds = time.perf_counter_ns, len(calls)
    window_ns = int(duration_s * NS_PER_S / WINDOWS)
    warm_up(Series(calls))
    started_j = [counter.joules() for counter in counters]
    started = clock()
    turn = 0
    for window in range(WINDOWS):
        end, first = started + (window + 1) * window_ns, turn
        samples: list[int] = []
        now = clock()
        while now < end or turn == first:
            call = calls[turn % kinds]
            begun = clock()
            call()
            now = clock()
            samples.append(now - begun)
            turn += 1
            if len(samples) == PIECE:
                yield Piece(window, samples, None)
                samples = []
        spent_j = [counter.joules() - j for counter, j in zip(counters, started_j)]
        reading = {
            "temperature_c": temperature_c(),
            "frequency_khz": state()["frequency_khz"],
            "joules": spent_j,
        }
        yield Piece(window, samples, reading)


def temperature_c(sys: Path = SYS) -> float | None:
    """The hottest thermal zone in degrees Celsius; None where none can be read."""
    found = []
    for path in (sys / "class/thermal").glob("thermal_zone*/temp"):
        try:
            found.append(int(path.read_text()) / 1000)
        except (OSError, ValueError):
            continue
    return max(found, default=None)
