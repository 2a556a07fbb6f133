"""Timing: warm-up to a steady state, then interleaved blocks, every sample kept."""

from __future__ import annotations

import gc
import math
import statistics
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

NS_PER_S = 1_000_000_000
WARM_UP_MAX_S = 5.0
WARM_UP_WINDOW = 20
WARM_UP_TOLERANCE = 0.01
UNTIMED = 2


class Rule(NamedTuple):
    """When a series of timed runs is long enough.

    Attributes:
        needed: Samples, at least.
        min_ns: Timed ns, at least.
        max_ns: Timed ns, at most; a slow model then has fewer samples.
        block: Fewest timed runs of one model before the next one's turn.
    """

    needed: int
    min_ns: int
    max_ns: int
    block: int


class Series:
    """The timed runs of one model so far; `calls` rotate through its inputs."""

    def __init__(self, calls: Sequence[Callable[[], object]]) -> None:
        self.calls = calls
        self.per_block = 0
        self.samples_ns: list[int] = []
        self.timed_ns = 0
        self.turn = 0


def prepare(series: Sequence[Series], rule: Rule) -> int:
    """Warm all models up and size their blocks such that all end together; returns the rounds.

    A fast model gets larger blocks than a slow one, and no part of its samples is taken alone.
    """
    medians_ns = [warm_up(s) for s in series]
    wanted = [max(rule.needed, math.ceil(rule.min_ns / m)) for m in medians_ns]
    rounds = max(1, math.ceil(min(wanted) / rule.block))
    for s, runs in zip(series, wanted):
        s.per_block = max(rule.block, math.ceil(runs / rounds))
    return rounds


def turns(series: Sequence[Series], rule: Rule) -> Iterator[int]:
    """Time one block of every model that has not used up its time, in an order that rotates.

    Yields:
        How many were not finished before each round; ends when all are.
    """
    turn = 0
    while True:
        unfinished = sum(not finished(s.samples_ns, s.timed_ns, rule) for s in series)
        if not unfinished:
            return
        running = [s for s in series if s.timed_ns < rule.max_ns]
        first = turn % len(running)
        for s in running[first:] + running[:first]:
            timed(s, UNTIMED)
            samples = timed(s, s.per_block, rule.max_ns - s.timed_ns)
            s.samples_ns += samples
            s.timed_ns += sum(samples)
        turn += 1
        yield unfinished


def finished(samples_ns: Sequence[int], timed_ns: int, rule: Rule) -> bool:
    """Whether these samples are all that the rule asks for."""
    enough = len(samples_ns) >= rule.needed and timed_ns >= rule.min_ns
    return enough or timed_ns >= rule.max_ns


def is_steady(runs: Sequence[int]) -> bool:
    """Whether the last window of runs took as long as the one before, by their medians."""
    if len(runs) < 2 * WARM_UP_WINDOW:
        return False
    last = statistics.median(runs[-WARM_UP_WINDOW:])
    before = statistics.median(runs[-2 * WARM_UP_WINDOW : -WARM_UP_WINDOW])
    return abs(last - before) <= WARM_UP_TOLERANCE * before


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


def warm_up(series: Series) -> float:
    """Run until steady; the median of the last runs in ns, never below 1."""
    runs: list[int] = []
    start = time.perf_counter_ns()
    while True:
        runs += timed(series, 1)
        if time.perf_counter_ns() - start >= WARM_UP_MAX_S * NS_PER_S or is_steady(runs):
            return max(1.0, statistics.median(runs[-WARM_UP_WINDOW:]))


def timed(series: Series, count: int, limit_ns: int | None = None) -> list[int]:
    """Time `count` inferences, or fewer once they took `limit_ns` together."""
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
