from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.steps.choose import Trained, TrainedArm, choose
from edgekd.tasks._contract import TASKS

TASK = TASKS.build("classification")


def arm(name: str, scores: list[float], loss: float = 0.1) -> TrainedArm:
    return TrainedArm(
        name,
        tuple(
            Trained(seed, Path("x"), "", score, loss, test=0.0, train_s=1.0)
            for seed, score in enumerate(scores)
        ),
    )


def test_a_difference_beyond_chance_decides() -> None:
    choice = choose(arm("a", [0.90] * 3), arm("b", [0.95] * 3, loss=9.0), TASK, samples=359)
    assert choice.kept.name == "b"
    assert choice.reason == "5.00 pt better on validation"
    assert choose(arm("a", [0.95]), arm("b", [0.80]), TASK, samples=359).kept.name == "a"


def test_within_chance_the_lower_loss_decides() -> None:
    # sqrt(2 · 0.98 · 0.02 / 359) = 1.04 points
    better = choose(arm("a", [0.981]), arm("b", [0.980], loss=0.05), TASK, samples=359)
    assert better.kept.name == "b"
    assert better.reason.startswith("equal on validation within chance (1.0")
    assert "loss 0.050 against 0.100" in better.reason
    assert choose(arm("a", [0.98]), arm("b", [0.981], 0.2), TASK, samples=359).kept.name == "a"


def test_the_refined_arm_must_show_that_it_helps() -> None:
    assert choose(arm("a", [0.9]), arm("b", [0.9]), TASK, samples=100).kept.name == "a"


def test_perfect_scores_leave_no_room_for_chance() -> None:
    choice = choose(arm("a", [1.0]), arm("b", [1.0], loss=0.01), TASK, samples=100)
    assert choice.kept.name == "b"


def test_the_best_seed_is_chosen_on_validation_and_equals_by_loss() -> None:
    found = TrainedArm(
        "a",
        tuple(
            Trained(seed, Path("x"), "", score, loss, test, 0.0)
            for seed, score, loss, test in (
                (0, 0.9, 0.2, 1.0),  # the best on test, which must not matter
                (1, 0.95, 0.3, 0.0),
                (2, 0.95, 0.1, 0.0),
            )
        ),
    )
    assert found.best.seed == 2
    assert found.of_seed(1).validation_loss == 0.3
    assert found.validation == pytest.approx(0.9333, abs=1e-4)
