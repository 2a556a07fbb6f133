"""Timing: warm-up to a steady state, then interleaved blocks, every sample kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field, model_validator

from edgekd.core.config import Config
from edgekd.core.types import Conditions, Profile
from edgekd.numerics.statistics import needed_samples
from edgekd.profile.agent import timing
from edgekd.profile.environment import environment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgekd.backends._contract import Feeds, Session
    from edgekd.core.progress import Progress
    from edgekd.core.target import Target

CLOCK = "perf_counter_ns"
WARM_UP = (
    f"until the median of {timing.WARM_UP_WINDOW} runs is within "
    f"{timing.WARM_UP_TOLERANCE * 100:g} % of the {timing.WARM_UP_WINDOW} before, "
    f"at most {timing.WARM_UP_MAX_S:g} s; {timing.UNTIMED} untimed runs before each block"
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

    def limits(self) -> timing.Rule:
        """The same in samples and ns, as the timing loop takes it."""
        return timing.Rule(
            needed=needed_samples(self.percentile),
            min_ns=round(self.min_duration_s * timing.NS_PER_S),
            max_ns=round(self.max_duration_s * timing.NS_PER_S),
            block=self.block,
        )


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
    limits = rule.limits()
    before = environment()
    series = [timing.Series([s.session.bind(f) for f in s.feeds]) for s in subjects]
    with timing.without_collection():
        rounds = timing.prepare(series, limits)
        what = subjects[0].name if len(subjects) == 1 else f"{len(subjects)} files in turns"
        with progress.bar(f"measure {what}", total=rounds) as bar:
            for turn, unfinished in enumerate(timing.turns(series, limits)):
                if turn < rounds:
                    bar.advance(note=f"{unfinished} to go")
    state = {**before["state"], "load_average_after": environment()["state"]["load_average"]}
    where = {**before, "state": state}
    return [
        Profile(
            artifact_sha256=subject.artifact_sha256,
            target=subject.target.name,
            conditions=conditions(subject.target, rule, inputs=inputs, others=len(subjects) - 1),
            samples_ns=tuple(s.samples_ns),
            environment=where,
            source="measured",
        )
        for subject, s in zip(subjects, series, strict=True)
    ]


def conditions(target: Target, rule: MeasureRule, *, inputs: str, others: int) -> Conditions:
    """What a file is timed under: its target's conditions, and how long, in words.

    Args:
        target: Whose conditions.
        rule: How long.
        inputs: Where the feeds come from.
        others: Files timed in turns with it.
    """
    return Conditions(
        batch_size=target.conditions.batch_size,
        threads=target.conditions.threads,
        warm_up=WARM_UP,
        duration=(
            f"at least {needed_samples(rule.percentile)} runs (p{rule.percentile} at 99 % "
            f"confidence) and {rule.min_duration_s:g} s, at most {rule.max_duration_s:g} s, "
            f"in blocks of at least {rule.block}"
        ),
        clock=CLOCK,
        power_mode=target.conditions.power_mode,
        interleaved_with=others,
        inputs=inputs,
    )
