"""A long run of one file: when a device gets hot, the burst figure is not what users feel."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgekd.core.types import Conditions, Profile
from edgekd.profile.agent.machine import state
from edgekd.profile.agent.timing import Series, warm_up, without_collection
from edgekd.profile.energy import SYS, find_counters
from edgekd.profile.environment import environment
from edgekd.profile.measure import CLOCK, WARM_UP

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from edgekd.core.progress import Progress
    from edgekd.profile.energy import EnergyCounter
    from edgekd.profile.measure import Subject

_NS_PER_S, _NS_PER_MS = 1_000_000_000, 1e6
_WINDOWS = 60
_REFERENCE_WINDOWS = 3
_SLOWER = 1.10
_LASTING = 3


@dataclass(frozen=True, slots=True)
class Window:
    """A sixtieth of the run.

    Attributes:
        start_s: Since the first timed inference.
        runs: Inferences in it.
        median_ms: Of them.
        temperature_c: Hottest zone at its end; None where none can be read.
        frequency_khz: Of the first core at its end; None where it cannot be read.
    """

    start_s: float
    runs: int
    median_ms: float
    temperature_c: float | None
    frequency_khz: int | None


@dataclass(frozen=True, slots=True)
class Energy:
    """What one counter says of the whole run.

    Attributes:
        counter: Its name; it counts everything that its part of the machine does.
        joules: From the first to the last inference.
        per_inference_mj: Millijoules.
    """

    counter: str
    joules: float
    per_inference_mj: float


@dataclass(frozen=True, slots=True)
class Sustained:
    """A long run.

    Attributes:
        profile: All samples; its conditions say that it is a sustained run, so that it never
            compares with a burst.
        windows: In order.
        throttled_at_s: Start of the first window from which on the run stays at least 10 % slower
            than in its first three windows; None where it does not.
        slowdown: Median of the last three windows over that of the first three.
        energy: One per counter; empty where the machine has none.
    """

    profile: Profile
    windows: tuple[Window, ...]
    throttled_at_s: float | None
    slowdown: float
    energy: tuple[Energy, ...]


def sustain(
    subject: Subject,
    duration_s: float,
    *,
    inputs: str,
    progress: Progress,
    counters: Sequence[EnergyCounter] | None = None,
) -> Sustained:
    """Run one file back to back for `duration_s` seconds, every run timed and kept.

    Args:
        subject: The file.
        duration_s: Seconds.
        inputs: Where the feeds come from, for the conditions.
        progress: Gets a bar.
        counters: Of energy; by default all that the machine has.
    """
    counters = find_counters() if counters is None else counters
    before = environment()
    calls = [subject.session.bind(feeds) for feeds in subject.feeds]
    clock, window_ns = time.perf_counter_ns, int(duration_s * _NS_PER_S / _WINDOWS)
    samples: list[int] = []
    windows: list[Window] = []
    with without_collection(), progress.bar(f"sustain {subject.name}", _WINDOWS) as bar:
        warm_up(Series(calls))
        started_j = [counter.joules() for counter in counters]
        started = clock()
        for index in range(_WINDOWS):
            first, end = len(samples), started + (index + 1) * window_ns
            now = clock()
            while now < end or first == len(samples):
                call = calls[len(samples) % len(calls)]
                begun = clock()
                call()
                now = clock()
                samples.append(now - begun)
            windows.append(_window((index * window_ns) / _NS_PER_S, samples[first:]))
            for counter in counters:
                counter.joules()  # a counter that wraps must be read now and then
            bar.advance(1, f"median {windows[-1].median_ms:.3f} ms")
        spent_j = [c.joules() - j for c, j in zip(counters, started_j, strict=True)]
    profile = Profile(
        artifact_sha256=subject.artifact_sha256,
        target=subject.target.name,
        conditions=_conditions(subject, duration_s, inputs),
        samples_ns=tuple(samples),
        environment=before,
        source="measured",
    )
    medians = [window.median_ms for window in windows]
    return Sustained(
        profile=profile,
        windows=tuple(windows),
        throttled_at_s=None if (at := onset(medians)) is None else windows[at].start_s,
        slowdown=_median(medians[-_LASTING:]) / _median(medians[:_REFERENCE_WINDOWS]),
        energy=tuple(
            Energy(counter.name, joules, joules / len(samples) * 1e3)
            for counter, joules in zip(counters, spent_j, strict=True)
        ),
    )


def onset(medians_ms: Sequence[float]) -> int | None:
    """Index of the window where a lasting slowdown begins; None where there is none.

    Lasting means to the end of the run, in three windows at least: a neighbour that took the
    machine for a moment is not heat.

    >>> onset([1.0] * 5 + [1.3] * 5), onset([1.0] * 5 + [1.3] * 4 + [1.0])
    (5, None)
    """
    limit = _SLOWER * _median(medians_ms[:_REFERENCE_WINDOWS])
    at = len(medians_ms)
    while at > 0 and medians_ms[at - 1] >= limit:
        at -= 1
    return at if len(medians_ms) - at >= _LASTING else None


def temperature_c(sys: Path = SYS) -> float | None:
    """The hottest thermal zone in degrees Celsius; None where none can be read."""
    found = []
    for path in (sys / "class/thermal").glob("thermal_zone*/temp"):
        try:
            found.append(int(path.read_text()) / 1000)
        except (OSError, ValueError):
            continue
    return max(found, default=None)


def _window(start_s: float, samples_ns: Sequence[int]) -> Window:
    return Window(
        start_s=start_s,
        runs=len(samples_ns),
        median_ms=_median(samples_ns) / _NS_PER_MS,
        temperature_c=temperature_c(),
        frequency_khz=state()["frequency_khz"],
    )


def _median(values: Sequence[float]) -> float:
    return float(statistics.median(values))


def _conditions(subject: Subject, duration_s: float, inputs: str) -> Conditions:
    given = subject.target.conditions
    return Conditions(
        batch_size=given.batch_size,
        threads=given.threads,
        warm_up=WARM_UP,
        duration=f"sustained: back to back for {duration_s:g} s",
        clock=CLOCK,
        power_mode=given.power_mode,
        interleaved_with=0,
        inputs=inputs,
    )
