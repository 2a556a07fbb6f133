from __future__ import annotations

import numpy as np
import pytest

from edgekd.core.errors import RecipeError
from edgekd.tasks._contract import SOURCES, TASKS
from edgekd.tasks.classification import UNDECIDED, Classification
from edgekd.testing.sources import example


def test_the_largest_logit_decides_and_the_first_of_equal_ones() -> None:
    logits = np.array([[0, 2, 1], [3, 3, 0], [-5, -4, -9]], np.float32)
    decision = Classification().decide(logits)
    assert decision.tolist() == [1, 0, 1]
    assert decision.dtype == np.int64


def test_a_row_with_nan_is_undecided_and_never_right() -> None:
    logits = np.array([[np.nan, 2], [np.inf, 2]], np.float32)
    task = Classification()
    assert task.decide(logits).tolist() == [UNDECIDED, 0]
    assert task.score(logits, np.array([0, 0])) == 0.5


def test_score_is_the_fraction_of_right_decisions() -> None:
    logits = np.eye(4, dtype=np.float32)
    assert Classification().score(logits, np.array([0, 1, 2, 0])) == 0.75


@pytest.mark.parametrize("labels", [[], [0, 1]])
def test_score_refuses_what_it_cannot_compare(labels: list[int]) -> None:
    with pytest.raises(ValueError, match="cannot score"):
        Classification().score(np.zeros((len(labels) and 3, 2), np.float32), np.array(labels))


def test_one_output_per_class(tmp_path) -> None:
    data = SOURCES.build("digits").load(tmp_path)
    assert TASKS.build("classification").output_width(data) == 10
    assert TASKS.build("classification").output_width(example("idx", tmp_path).load()) == 3


def test_another_metric_is_refused() -> None:
    with pytest.raises(RecipeError, match="metric: Input should be 'accuracy', got 'f1'"):
        TASKS.build({"name": "classification", "metric": "f1"})
