from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from edgekd.distill.trainer import EpochRecord
from edgekd.steps.watch import Watch
from edgekd.tasks._contract import TASKS

TASK = TASKS.build("classification")
SCORES = st.lists(st.floats(0.2, 0.95), min_size=6, max_size=6)


def watch(*controls: list[float], patience: int = 2, samples: int = 1000) -> Watch:
    return Watch(controls, paired=0, task=TASK, samples=samples, patience=patience)


def records(*scores: float) -> list[EpochRecord]:
    return [EpochRecord(1.0, 1.0, score, 0.5) for score in scores]


def test_it_stops_after_so_many_epochs_in_a_row_behind() -> None:
    control = [0.80, 0.85, 0.86, 0.87]
    found = watch(control)
    assert not found(records(0.70))
    assert found(records(0.70, 0.75))
    assert not found(records(0.70, 0.86))  # caught up
    assert not found(records(0.70, 0.86, 0.70))  # once is not twice
    assert found(records(0.70, 0.86, 0.70, 0.71))


def test_a_lead_within_the_standard_error_is_chance() -> None:
    # sqrt(2 · 0.85 · 0.15 / 1000) = 1.6 points
    assert not watch([0.85, 0.85])(records(0.835, 0.835))
    assert watch([0.85, 0.85])(records(0.83, 0.83))
    assert not watch([0.85, 0.85], samples=100)(records(0.83, 0.83))


def test_a_lead_within_the_spread_of_the_controls_seeds_is_chance() -> None:
    steady = watch([0.85, 0.85], [0.851, 0.851], [0.849, 0.849])
    wild = watch([0.85, 0.85], [0.95, 0.95], [0.75, 0.75])
    behind = records(0.80, 0.80)
    assert steady(behind)
    assert not wild(behind)


def test_the_control_of_the_same_seed_is_the_one_to_beat() -> None:
    controls = [[0.850, 0.850], [0.854, 0.854]]
    for paired, stopped in ((0, False), (1, True)):
        found = Watch(controls, paired=paired, task=TASK, samples=100_000, patience=2)
        assert found(records(0.848, 0.848)) == stopped


def test_the_reason_gives_the_figures() -> None:
    text = watch([0.80, 0.85, 0.9]).reason(records(0.70, 0.75), 10)
    error = 100 * math.hypot(math.sqrt(0.85 * 0.15 / 1000), math.sqrt(0.75 * 0.25 / 1000))
    assert text == (
        "stopped after epoch 2 of 10: the control arm, trained on labels alone, was ahead by more "
        f"than chance for 2 epochs, at last by 10.00 pt (chance: {error:.2f} pt)"
    )


@given(SCORES, SCORES, st.integers(1, 4))
def test_more_patience_never_stops_earlier(
    control: list[float], scores: list[float], patience: int
) -> None:
    def end(patience: int) -> int:
        found = watch(control, patience=patience)
        return next((n for n in range(1, 7) if found(records(*scores[:n]))), 7)

    assert end(patience) <= end(patience + 1)
    assert end(patience) >= patience
