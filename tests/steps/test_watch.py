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
    found = watch([0.85] * 6)
    behind = records(*[0.75] * 6)
    assert [found(behind[:n]) for n in range(1, 6)] == [False, False, False, True, True]
    assert not found(records(0.75, 0.75, 0.85, 0.85))  # caught up


def test_a_single_epoch_that_falls_neither_stops_nor_saves_a_training() -> None:
    # 2-bit students on labels alone, distilled at T = 5 and at T = 2
    control = [0.668, 0.681, 0.711, 0.709, 0.585, 0.748]
    found = watch(control, patience=3, samples=3000)
    ruined = records(0.526, 0.678, 0.573, 0.602, 0.623, 0.607)
    assert not found(ruined[:4])
    assert found(ruined[:5])
    unsteady = records(0.714, 0.707, 0.588, 0.707, 0.584, 0.721)
    assert not any(found(unsteady[:n]) for n in range(1, 7))
    late = watch([0.741, 0.669, 0.741, 0.725, 0.769, 0.761], patience=3, samples=3000)
    rising = records(0.699, 0.687, 0.695, 0.764, 0.748, 0.775)
    assert not any(late(rising[:n]) for n in range(1, 7))


def test_a_lead_within_the_standard_error_is_chance() -> None:
    # sqrt(2 · 0.85 · 0.15 / 1000) = 1.6 points
    steady = [0.85] * 4
    assert not watch(steady)(records(*[0.835] * 4))
    assert watch(steady)(records(*[0.83] * 4))
    assert not watch(steady, samples=100)(records(*[0.83] * 4))


def test_a_lead_within_the_spread_of_the_controls_seeds_is_chance() -> None:
    steady = watch([0.85] * 4, [0.851] * 4, [0.849] * 4)
    wild = watch([0.85] * 4, [0.95] * 4, [0.75] * 4)
    behind = records(*[0.80] * 4)
    assert steady(behind)
    assert not wild(behind)


def test_the_control_of_the_same_seed_is_the_one_to_beat() -> None:
    controls = [[0.850] * 4, [0.854] * 4]
    for paired, stopped in ((0, False), (1, True)):
        found = Watch(controls, paired=paired, task=TASK, samples=100_000, patience=2)
        assert found(records(*[0.848] * 4)) == stopped


def test_the_reason_gives_the_figures() -> None:
    text = watch([0.80, 0.85, 0.85, 0.9]).reason(records(0.70, 0.75, 0.75, 0.75), 10)
    error = 100 * math.hypot(math.sqrt(0.85 * 0.15 / 1000), math.sqrt(0.75 * 0.25 / 1000))
    assert text == (
        "stopped after epoch 4 of 10: the control arm, trained on labels alone, was ahead by more "
        f"than chance for 2 epochs, at last by 10.00 pt (chance: {error:.2f} pt; medians of 3 "
        "epochs)"
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
