"""A long run of one file: when a device gets hot, the burst figure is not what users feel."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgekd.core.errors import DeviceError
from edgekd.core.types import Conditions, Profile
from edgekd.profile.agent.endurance import WINDOWS, pieces
from edgekd.profile.agent.energy import find_counters
from edgekd.profile.agent.timing import without_collection
from edgekd.profile.environment import environment
from edgekd.profile.measure import CLOCK, WARM_UP

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgekd.core.progress import Progress
    from edgekd.core.target import Target
    from edgekd.profile.agent.endurance import Piece
    from edgekd.profile.agent.energy import EnergyCounter
    from edgekd.profile.measure import Subject

_NS_PER_MS = 1e6
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
            compares with a burst, and where it was broken off, so that it never compares with a
            whole one.
        windows: Those that were whole, in order.
        throttled_at_s: Start of the first window from which on the run stays at least 10 % slower
            than in its first three windows; None where it does not.
        slowdown: Median of the last three windows over that of the first three; None where there
            are not as many.
        energy: One per counter; empty where the machine has none.
    """

    profile: Profile
    windows: tuple[Window, ...]
    throttled_at_s: float | None
    slowdown: float | None
    energy: tuple[Energy, ...]


class BrokenOffError(DeviceError):
    """A long run that a device did not bring to its end.

    Attributes:
        so_far: What came until then; None where nothing did.
    """

    def __init__(self, cause: DeviceError, so_far: Sustained | None) -> None:
        super().__init__(cause.failed, expected=cause.expected, got=cause.got, todo=cause.todo)
        self.so_far = so_far


class Record:
    """What has come of a long run so far.

    Args:
        duration_s: That it is to last, seconds.
        counters: Names of those that count its energy.
    """

    def __init__(self, duration_s: float, counters: Sequence[str]) -> None:
        self._duration_s, self._counters = duration_s, counters
        self._samples_ns: list[int] = []
        self._windowed = 0
        self._counted: tuple[int, Sequence[float]] = (0, ())
        self.windows: list[Window] = []

    def add(self, piece: Piece) -> None:
        """Take the next one."""
        self._samples_ns += piece.samples_ns
        if piece.reading is None:
            return
        mine = self._samples_ns[self._windowed :]
        self._windowed += len(mine)
        self._counted = self._windowed, piece.reading["joules"]
        self.windows.append(
            Window(
                start_s=piece.window * self._duration_s / WINDOWS,
                runs=len(mine),
                median_ms=_median(mine) / _NS_PER_MS,
                temperature_c=piece.reading["temperature_c"],
                frequency_khz=piece.reading["frequency_khz"],
            )
        )

    def summary(
        self, artifact_sha256: str, target: Target, where: Mapping[str, Any], *, inputs: str
    ) -> Sustained | None:
        """The run as far as it came; None where not one inference did.

        Args:
            artifact_sha256: Of the file.
            target: Whose conditions it ran under.
            where: Environment before the run.
            inputs: Where the feeds come from, for the conditions.
        """
        if not self._samples_ns:
            return None
        duration = f"sustained: back to back for {self._duration_s:g} s"
        if len(self.windows) < WINDOWS:
            duration += f", broken off after {len(self.windows)} of {WINDOWS} windows"
        medians = [window.median_ms for window in self.windows]
        at = onset(medians)
        runs, spent_j = self._counted
        return Sustained(
            profile=Profile(
                artifact_sha256=artifact_sha256,
                target=target.name,
                conditions=_conditions(target, duration, inputs),
                samples_ns=tuple(self._samples_ns),
                environment=dict(where),
                source="measured",
            ),
            windows=tuple(self.windows),
            throttled_at_s=None if at is None else self.windows[at].start_s,
            slowdown=_slowdown(medians),
            energy=tuple(
                Energy(counter, joules, joules / runs * 1e3)
                for counter, joules in zip(self._counters, spent_j, strict=False)
            ),
        )


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
    where = environment()
    calls = [subject.session.bind(feeds) for feeds in subject.feeds]
    record = Record(duration_s, [counter.name for counter in counters])
    with without_collection(), progress.bar(f"sustain {subject.name}", WINDOWS) as bar:
        for piece in pieces(calls, duration_s, counters):
            record.add(piece)
            if piece.reading is not None:
                bar.advance(1, f"median {record.windows[-1].median_ms:.3f} ms")
    found = record.summary(subject.artifact_sha256, subject.target, where, inputs=inputs)
    assert found is not None  # every window has an inference
    return found


def onset(medians_ms: Sequence[float]) -> int | None:
    """Index of the window where a lasting slowdown begins; None where there is none.

    Lasting means to the end of the run, in three windows at least: a neighbour that took the
    machine for a moment is not heat.

    >>> onset([1.0] * 5 + [1.3] * 5), onset([1.0] * 5 + [1.3] * 4 + [1.0])
    (5, None)
    """
    if not medians_ms:
        return None
    limit = _SLOWER * _median(medians_ms[:_REFERENCE_WINDOWS])
    at = len(medians_ms)
    while at > 0 and medians_ms[at - 1] >= limit:
        at -= 1
    return at if len(medians_ms) - at >= _LASTING else None


def _slowdown(medians_ms: Sequence[float]) -> float | None:
    if len(medians_ms) < _REFERENCE_WINDOWS + _LASTING:
        return None
    return _median(medians_ms[-_LASTING:]) / _median(medians_ms[:_REFERENCE_WINDOWS])


def _median(values: Sequence[float]) -> float:
    return float(statistics.median(values))


def _conditions(target: Target, duration: str, inputs: str) -> Conditions:
    return Conditions(
        batch_size=target.conditions.batch_size,
        threads=target.conditions.threads,
        warm_up=WARM_UP,
        duration=duration,
        clock=CLOCK,
        power_mode=target.conditions.power_mode,
        interleaved_with=0,
        inputs=inputs,
    )
