from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgekd.core.errors import DataError
from edgekd.distill.feed import Feed, ResidentSplit, resident, resident_data
from edgekd.tasks._contract import Data


def _split(count: int) -> ResidentSplit:
    inputs = np.arange(count, dtype=np.float32)[:, None].repeat(3, 1)
    return ResidentSplit(inputs, np.arange(count) % 5)


class _OnDisk:
    """Counts how often it is read."""

    def __init__(self, count: int) -> None:
        self.inner, self.reads = _split(count), 0
        self.labels = self.inner.labels

    def __len__(self) -> int:
        return len(self.inner)

    def batch(self, indices: Any) -> Any:
        self.reads += 1
        return self.inner.batch(indices)


@given(st.integers(2, 60), st.integers(2, 20), st.integers(0, 2**31), st.integers(0, 5))
def test_an_epoch_shows_every_sample_once_but_a_rest_of_one(
    count: int, batch_size: int, seed: int, epoch: int
) -> None:
    feed = Feed(_split(count), batch_size, seed)
    batches = [feed.indices(epoch, step) for step in range(feed.steps_per_epoch)]
    assert all(2 <= len(b) <= batch_size for b in batches)
    shown = np.concatenate(batches)
    assert len(set(shown.tolist())) == len(shown) == count - (count % batch_size == 1)


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return Feed(_split(40), 40, seed).indices(epoch, 0).tolist()

    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4
    feed = Feed(_split(40), 10, 0)
    late = feed.indices(7, 2).tolist()
    feed.indices(0, 0)
    assert feed.indices(7, 2).tolist() == late


def test_inputs_and_labels_belong_together() -> None:
    feed = Feed(_split(40), 8, 0)
    indices = feed.indices(0, 1)
    inputs, labels = feed.read(indices)
    assert torch.equal(inputs[:, 0], torch.from_numpy(indices).float())
    assert torch.equal(labels, torch.from_numpy(indices % 5))


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_samples_are_refused(count: int) -> None:
    with pytest.raises(DataError) as error:
        Feed(_split(count), 8, 0)
    assert "The train split is too small to train on." in str(error.value)
    assert f"got:      {count}" in str(error.value)


def test_a_split_that_fits_is_read_once() -> None:
    split = _OnDisk(5000)
    held = resident(split, (3,))
    reads = split.reads
    picked = np.array([4999, 0, 2048])
    assert np.array_equal(held.batch(picked), split.inner.batch(picked))
    assert np.array_equal(held.labels, split.labels)
    assert split.reads == reads == 3  # chunks of 2048
    assert resident(held, (3,)) is held


def test_a_split_that_does_not_fit_stays_where_it_is() -> None:
    split = _OnDisk(10)
    assert resident(split, (3,), limit_bytes=10 * 3 * 4 - 1) is split
    assert isinstance(resident(split, (3,), limit_bytes=10 * 3 * 4), ResidentSplit)


def test_resident_data_holds_train_and_validation(data: Data) -> None:
    held: Callable[..., Data] = resident_data
    same = held(data)
    assert (same.train, same.validation, same.test) == (data.train, data.validation, data.test)
