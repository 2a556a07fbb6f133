"""The timing loop, on sessions whose speed the tests decide."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

import numpy as np
import pytest

from edgekd.core.config import validate
from edgekd.core.errors import RecipeError
from edgekd.core.progress import Silent
from edgekd.core.target import load_target
from edgekd.core.types import TensorSpec
from edgekd.profile.agent.timing import is_steady
from edgekd.profile.measure import CLOCK, MeasureRule, Subject, measure

TARGET = load_target("x86-onnxruntime-fp32")
QUICK = MeasureRule(percentile=90, min_duration_s=0, max_duration_s=20)


class Spinner:
    """A session that takes a given time and writes down who ran and on which feed."""

    inputs = (TensorSpec("x", "float32", (1,)),)
    outputs = ()

    def __init__(self, name: str, log: list[tuple[str, float]], seconds: float) -> None:
        self.name, self.log, self.seconds = name, log, seconds

    def bind(self, feeds) -> Callable[[], object]:
        value = float(feeds["x"][0])

        def call() -> None:
            self.log.append((self.name, value))
            end = time.perf_counter_ns() + self.seconds * 1e9
            while time.perf_counter_ns() < end:
                pass

        return call

    def run(self, feeds): ...
    def close(self) -> None: ...
    def __enter__(self):
        return self

    def __exit__(self, *exc: object) -> None: ...


def subjects(log: list[tuple[str, float]], **seconds: float) -> list[Subject]:
    feeds = [{"x": np.array([i], np.float32)} for i in range(3)]
    return [Subject(n, Spinner(n, log, s), feeds, n * 4, TARGET) for n, s in seconds.items()]


def blocks(log: list[tuple[str, float]]) -> list[tuple[str, int]]:
    """Runs of the same subject without another in between."""
    found: list[tuple[str, int]] = []
    for name, _ in log:
        if found and found[-1][0] == name:
            found[-1] = (name, found[-1][1] + 1)
        else:
            found.append((name, 1))
    return found


def test_every_sample_is_kept_and_the_conditions_say_how() -> None:
    log: list[tuple[str, float]] = []
    profiles = measure(
        subjects(log, a=1e-4, b=2e-4), QUICK, inputs="real test samples", progress=Silent()
    )
    for profile, name in zip(profiles, "ab", strict=True):
        assert len(profile.samples_ns) >= 64, "p90 needs 64"
        assert profile.artifact_sha256 == name * 4
        assert profile.source == "measured"
        assert profile.target == TARGET.name
    # a spin of 0.1 ms never reads as less
    assert min(profiles[0].samples_ns) >= 1e5
    assert min(profiles[1].samples_ns) >= 2e5
    conditions = profiles[0].conditions
    assert conditions == profiles[1].conditions
    assert (conditions.threads, conditions.batch_size) == (1, 1)
    assert (conditions.clock, conditions.interleaved_with) == (CLOCK, 1)
    assert conditions.inputs == "real test samples"
    assert conditions.warm_up.startswith("until the median of 20 runs is within 1 % of the 20")
    assert "2 untimed runs before each block" in conditions.warm_up
    assert conditions.duration == (
        "at least 64 runs (p90 at 99 % confidence) and 0 s, at most 20 s, in blocks of at least 16"
    )


def test_subjects_take_turns_and_the_order_rotates() -> None:
    log: list[tuple[str, float]] = []
    measure(subjects(log, a=1e-5, b=1e-5, c=1e-5), QUICK, inputs="-", progress=Silent())
    timed = blocks(log)[3:]  # the first three are the warm-ups
    order = "".join(name for name, _ in timed)
    assert order == "abcbcacababc"  # 64 samples in blocks of 16: four rounds
    assert {count for _, count in timed} == {2 + 16}


def test_a_fast_subject_gets_larger_blocks_so_that_all_end_together() -> None:
    log: list[tuple[str, float]] = []
    rule = MeasureRule(percentile=90, min_duration_s=0.1, max_duration_s=20)
    fast, slow = measure(subjects(log, fast=1e-4, slow=2e-3), rule, inputs="-", progress=Silent())
    assert sum(fast.samples_ns) >= 0.1e9
    assert len(slow.samples_ns) % 16 == 0
    assert len(slow.samples_ns) >= 64
    assert len(fast.samples_ns) > 3 * len(slow.samples_ns)  # 20 times as fast, when undisturbed
    timed = [n for n, _ in blocks(log)][2:]
    assert timed.count("fast") >= 2
    assert timed.count("slow") >= 2


def test_feeds_rotate_in_every_block() -> None:
    log: list[tuple[str, float]] = []
    measure(subjects(log, a=1e-5), QUICK, inputs="-", progress=Silent())
    values = [value for _, value in log]
    assert values == [float(i % 3) for i in range(len(values))]


def test_a_slow_file_stops_at_the_hard_limit() -> None:
    log: list[tuple[str, float]] = []
    rule = MeasureRule(percentile=99, min_duration_s=0, max_duration_s=0.05)
    (profile,) = measure(subjects(log, a=1e-3), rule, inputs="-", progress=Silent())
    total_s = sum(profile.samples_ns) / 1e9
    assert 0.05 <= total_s < 0.05 + max(profile.samples_ns) / 1e9 + 1e-3
    assert len(profile.samples_ns) < 662


def test_the_garbage_collector_rests_meanwhile_and_comes_back() -> None:
    seen: list[bool] = []
    subject = subjects([], a=1e-5)[0]
    bind = subject.session.bind

    def watching(feeds):
        call = bind(feeds)

        def both() -> None:
            seen.append(gc.isenabled())
            call()

        return both

    subject.session.bind = watching
    measure([subject], QUICK, inputs="-", progress=Silent())
    assert seen
    assert not any(seen)
    assert gc.isenabled()


def test_the_collector_comes_back_after_a_failure() -> None:
    subject = subjects([], a=1e-5)[0]

    def failing(feeds):
        def call() -> None:
            raise OSError("gone")

        return call

    subject.session.bind = failing
    with pytest.raises(OSError, match="gone"):
        measure([subject], QUICK, inputs="-", progress=Silent())
    assert gc.isenabled()


def test_timing_itself_costs_little() -> None:
    """An empty call is timed in under 5 us at the median: two clock reads and a call."""
    log: list[tuple[str, float]] = []
    subject = subjects(log, a=0)[0]
    subject.session.bind = lambda feeds: lambda: None
    (profile,) = measure([subject], QUICK, inputs="-", progress=Silent())
    assert np.median(profile.samples_ns) < 5_000


def test_progress_hears_of_every_round() -> None:
    class Counting(Silent):
        def __init__(self) -> None:
            self.title, self.total, self.done = "", 0, 0

        def bar(self, title: str, total: int, done: int = 0):
            from contextlib import contextmanager

            self.title, self.total = title, total
            outer = self

            class Bar:
                def advance(self, steps: int = 1, note: str = "") -> None:
                    outer.done += steps

            @contextmanager
            def opened():
                yield Bar()

            return opened()

    progress = Counting()
    measure(subjects([], a=1e-5, b=1e-5), QUICK, inputs="-", progress=progress)
    assert progress.title == "measure 2 files in turns"
    assert progress.total == progress.done == 4  # 64 samples in blocks of 16


@pytest.mark.parametrize(
    ("runs", "steady"),
    [
        ([100] * 40, True),
        ([100] * 39, False),  # two windows of 20 are not full
        ([200] * 20 + [100] * 20, False),
        ([500] * 100 + [100] * 40, True),
        ([100] * 20 + [101] * 20, True),
        ([100] * 20 + [102] * 20, False),
    ],
)
def test_steady_means_two_windows_with_the_same_median(runs: list[int], steady: bool) -> None:
    assert is_steady(runs) is steady


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"percentile": 100}, "percentile: "),
        ({"percentile": 49}, "percentile: "),
        ({"min_duration_s": 2, "max_duration_s": 1}, "min_duration_s is above max_duration_s"),
        ({"block": 0}, "block: "),
        ({"blocks": 3}, "Did you mean 'block'"),
    ],
)
def test_impossible_rules_are_refused(fields: dict[str, float], text: str) -> None:
    with pytest.raises(RecipeError) as caught:
        validate(MeasureRule, fields, source="recipe.yaml")
    assert text in caught.value.message
