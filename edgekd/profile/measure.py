"""Timing: warm-up to a steady state, then interleaved blocks, every sample kept."""

from __future__ import annotations

import gc
import math
import statistics
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field, model_validator

from edgekd.core.config import Config
from edgekd.core.types import Conditions, Profile
from edgekd.numerics.statistics import needed_samples
from edgekd.profile.environment import environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from edgekd.backends._contract import Feeds, Session
    from edgekd.core.progress import Progress
    from edgekd.core.target import Target

_NS_PER_S = 1_000_000_000
_WARM_UP_MAX_S = 5.0
_WARM_UP_WINDOW = 20
_WARM_UP_TOLERANCE = 0.01
_UNTIMED = 2
CLOCK = "perf_counter_ns"
WARM_UP = (
    f"until the median of {_WARM_UP_WINDOW} runs is within {_WARM_UP_TOLERANCE * 100:g} % of the "
    f"{_WARM_UP_WINDOW} before, at most {_WARM_UP_MAX_S:g} s; "
    f"{_UNTIMED} untimed runs before each block"
)


class MeasureRule(Config):
    """How long to measure.

    Attributes:
        percentile: Highest percentile that must be certified; 99 needs 662 samples.
        min_duration_s: Timed seconds of each file, at least.
        max_duration_s: Timed seconds of each file, at most: a slow one then has fewer samples,
            and its high percentiles are refused.
        block: Fewest timed runs of one file before the next file's turn.
    """

    percentile: Annotated[int, Field(ge=50, le=99)] = 99
    min_duration_s: Annotated[float, Field(ge=0, le=3600)] = 1.0
    max_duration_s: Annotated[float, Field(gt=0, le=3600)] = 60.0
    block: Annotated[int, Field(ge=1, le=10_000)] = 16

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_duration_s > self.max_duration_s:
            raise ValueError("min_duration_s is above max_duration_s")
        return self


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """One loaded file to time.

    Attributes:
        name: For the progress bar.
        session: Opened with the target's threads.
        feeds: Inputs of one inference each; the timed runs rotate through them.
        artifact_sha256: Of the file.
        target: Whose conditions it runs under.
    """

    name: str
    session: Session
    feeds: Sequence[Feeds]
    artifact_sha256: str
    target: Target


@dataclass(slots=True)
class Series:
    """The timed runs of one subject so far.

    Attributes:
        calls: One per feed, in turns.
        per_block: Timed runs of one turn.
        samples_ns: Every timed run.
        timed_ns: Their sum.
        turn: Position in `calls`.
    """

    calls: list[Callable[[], object]]
    per_block: int = 0
    samples_ns: list[int] = field(default_factory=list)
    timed_ns: int = 0
    turn: int = 0


def measure(
    subjects: Sequence[Subject], rule: MeasureRule, *, inputs: str, progress: Progress
) -> list[Profile]:
    """Time all subjects in one go, in turns, so that a drift of the machine hits all alike.

    The number of rounds is chosen from the warm-up such that all subjects end together: a fast
    one gets larger blocks than a slow one, and no part of its samples is taken alone.

    Args:
        subjects: What to time.
        rule: How long.
        inputs: Where the feeds come from, for the conditions: "real test samples".
        progress: Gets a bar.

    Returns:
        A profile per subject, in their order, all under equal conditions but for the threads and
        batch of their targets.
    """
    needed = needed_samples(rule.percentile)
    before = environment()
    series = [Series([s.session.bind(f) for f in s.feeds]) for s in subjects]
    with without_collection():
        medians_ns = [warm_up(s) for s in series]
        wanted = [max(needed, math.ceil(rule.min_duration_s * _NS_PER_S / m)) for m in medians_ns]
        rounds = max(1, math.ceil(min(wanted) / rule.block))
        for s, runs in zip(series, wanted, strict=True):
            s.per_block = max(rule.block, math.ceil(runs / rounds))
        what = subjects[0].name if len(subjects) == 1 else f"{len(subjects)} files in turns"
        with progress.bar(f"measure {what}", total=rounds) as bar:
            turn = 0
            while unfinished := [s for s in series if not _finished(s, needed, rule)]:
                for s in _rotated([s for s in series if not _capped(s, rule)], turn):
                    _block(s, round(rule.max_duration_s * _NS_PER_S))
                turn += 1
                if turn <= rounds:
                    bar.advance(note=f"{len(unfinished)} to go")
    state = {**before["state"], "load_average_after": environment()["state"]["load_average"]}
    where = {**before, "state": state}
    return [
        Profile(
            artifact_sha256=subject.artifact_sha256,
            target=subject.target.name,
            conditions=_conditions(subject, rule, needed, inputs, others=len(subjects) - 1),
            samples_ns=tuple(s.samples_ns),
            environment=where,
            source="measured",
        )
        for subject, s in zip(subjects, series, strict=True)
    ]


def warm_up(series: Series) -> float:
    """Run until steady; the median of the last runs in ns, never below 1."""
    runs: list[int] = []
    start = time.perf_counter_ns()
    while True:
        runs += timed(series, 1)
        if time.perf_counter_ns() - start >= _WARM_UP_MAX_S * _NS_PER_S or _steady(runs):
            return max(1.0, statistics.median(runs[-_WARM_UP_WINDOW:]))


def _steady(runs: Sequence[int]) -> bool:
    """Whether the last window of runs took as long as the one before, by their medians."""
    if len(runs) < 2 * _WARM_UP_WINDOW:
        return False
    last = statistics.median(runs[-_WARM_UP_WINDOW:])
    before = statistics.median(runs[-2 * _WARM_UP_WINDOW : -_WARM_UP_WINDOW])
    return abs(last - before) <= _WARM_UP_TOLERANCE * before


def _block(series: Series, limit_ns: int) -> None:
    timed(series, _UNTIMED)
    samples = timed(series, series.per_block, limit_ns - series.timed_ns)
    series.samples_ns += samples
    series.timed_ns += sum(samples)


def timed(series: Series, count: int, limit_ns: int | None = None) -> list[int]:
    """Time `count` inferences, or fewer once they took `limit_ns` together; samples in ns."""
    calls, clock = series.calls, time.perf_counter_ns
    kinds, turn = len(calls), series.turn
    samples: list[int] = []
    left = math.inf if limit_ns is None else limit_ns
    for i in range(turn, turn + count):
        call = calls[i % kinds]
        start = clock()
        call()
        taken = clock() - start
        samples.append(taken)
        left -= taken
        if left <= 0:
            break
    series.turn = turn + len(samples)
    return samples


def _finished(series: Series, needed: int, rule: MeasureRule) -> bool:
    enough = len(series.samples_ns) >= needed
    long_enough = series.timed_ns >= rule.min_duration_s * _NS_PER_S
    return (enough and long_enough) or _capped(series, rule)


def _capped(series: Series, rule: MeasureRule) -> bool:
    return series.timed_ns >= rule.max_duration_s * _NS_PER_S


def _rotated(series: list[Series], turn: int) -> list[Series]:
    first = turn % len(series) if series else 0
    return series[first:] + series[:first]


def _conditions(
    subject: Subject, rule: MeasureRule, needed: int, inputs: str, *, others: int
) -> Conditions:
    given = subject.target.conditions
    return Conditions(
        batch_size=given.batch_size,
        threads=given.threads,
        warm_up=WARM_UP,
        duration=(
            f"at least {needed} runs (p{rule.percentile} at 99 % confidence) and "
            f"{rule.min_duration_s:g} s, at most {rule.max_duration_s:g} s, "
            f"in blocks of at least {rule.block}"
        ),
        clock=CLOCK,
        power_mode=given.power_mode,
        interleaved_with=others,
        inputs=inputs,
    )


@contextmanager
def without_collection() -> Iterator[None]:
    """Keep Python's garbage collector out of the timed runs."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
