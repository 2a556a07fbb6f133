from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from edgekd.core.errors import DataError
from edgekd.tasks.sources._splits import Share, divide, draw

LABELS = st.lists(st.integers(0, 4), min_size=4, max_size=60).map(
    lambda values: np.array(values, np.int64)
)


@given(LABELS, st.data())
def test_draw_takes_each_class_in_proportion(labels: np.ndarray, data: st.DataObject) -> None:
    size = data.draw(st.integers(1, len(labels) - 1))
    taken, left = draw(labels, size, np.random.default_rng(0))
    assert sorted([*taken, *left]) == list(range(len(labels)))
    assert list(taken) == sorted(taken)
    classes = np.unique(labels)
    for label in classes:
        count = (labels == label).sum()
        share = count * size / len(labels)
        # Hamilton's method stays within one of the exact share
        assert abs((labels[taken] == label).sum() - share) <= 1
        assert (labels[left] == label).any(), "the last sample of a class was taken"
    # short only where the classes cannot give more without losing their last sample
    counts = np.array([(labels == label).sum() for label in classes])
    most = np.minimum(counts * size // len(labels) + 1, counts - 1).sum()
    assert len(taken) == min(size, most)


@given(LABELS, st.integers(0, 9))
def test_draw_is_decided_by_the_seed(labels: np.ndarray, seed: int) -> None:
    first, again = (draw(labels, 2, np.random.default_rng(seed))[0] for _ in range(2))
    assert np.array_equal(first, again)


@given(
    st.lists(st.integers(0, 3), min_size=30, max_size=80).map(lambda v: np.array(v, np.int64)),
    st.floats(0.05, 0.4) | st.integers(1, 12),
    st.floats(0.05, 0.4) | st.integers(1, 12),
    st.integers(0, 9),
)
def test_a_pool_is_cut_into_disjoint_splits(
    labels: np.ndarray, validation: float, test: float, seed: int
) -> None:
    parts = divide({"all": labels}, validation=validation, test=test, seed=seed)
    rows = [parts[name][1] for name in ("train", "validation", "test")]
    assert sorted(np.concatenate(rows)) == list(range(len(labels)))
    assert set(labels[rows[0]]) == set(labels), "a class is not in train"
    assert {pool for pool, _ in parts.values()} == {"all"}


def test_golden_rows() -> None:
    # a run that is continued with a newer edgekd must see the same splits
    parts = divide({"all": np.arange(20) % 2}, validation=0.2, test=3, seed=5)
    assert parts["test"][1].tolist() == [12, 14, 19]
    assert parts["validation"][1].tolist() == [3, 4, 17, 18]


def test_an_even_set_is_cut_exactly() -> None:
    labels = np.arange(60_000) % 10
    parts = divide({"train": labels, "test": labels[:10]}, validation=5000, seed=0)
    assert np.bincount(labels[parts["validation"][1]]).tolist() == [500] * 10
    assert parts["test"] == ("test", pytest.approx(np.arange(10)))


def test_given_splits_stay_as_they_are() -> None:
    pools = {"train": np.zeros(4, int), "validation": np.zeros(3, int), "test": np.zeros(2, int)}
    parts = divide(pools, validation=0.5, seed=0)
    assert {name: (pool, len(rows)) for name, (pool, rows) in parts.items()} == {
        "train": ("train", 4), "validation": ("validation", 3), "test": ("test", 2),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("validation", "test", "text"),
    [
        (0.001, 0.2, "The validation split cannot be cut out of 10 samples.\n"
                     "  expected: 1 to 9 samples, or a fraction that comes to that\n"
                     "  got:      validation: 0.001, which is 0 samples"),
        (0.2, 10, "The test split cannot be cut out of 10 samples."),
        (0.6, 0.4, "Validation and test leave nothing to train on.\n"
                   "  expected: together less than the 10 samples there are\n"
                   "  got:      6 for validation and 4 for test"),
    ],
)  # fmt: skip
def test_shares_that_do_not_fit(validation: float, test: float, text: str) -> None:
    with pytest.raises(DataError) as error:
        divide({"all": np.arange(10) % 2}, validation=validation, test=test, seed=0)
    assert text in str(error.value)


@pytest.mark.parametrize("value", [0, 1.0, 0.0, -0.2, -3, True, "0.2", 5000.0, float("nan")])
def test_a_share_is_a_fraction_or_a_number(value: object) -> None:
    with pytest.raises(ValidationError, match="a fraction between 0 and 1 or a whole number"):
        TypeAdapter(Share).validate_python(value)


@pytest.mark.parametrize("value", [0.2, 1, 5000])
def test_a_share_keeps_its_type(value: float) -> None:
    assert TypeAdapter(Share).validate_python(value) == value
    assert type(TypeAdapter(Share).validate_python(value)) is type(value)
