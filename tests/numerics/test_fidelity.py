from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekd.numerics.fidelity import Fidelity


def seen(*pairs: tuple[list[float], list[float]]) -> Fidelity:
    found = Fidelity()
    for expected, got in pairs:
        found.add(np.float32(expected), np.float32(got))
    return found


def test_numbers_by_hand() -> None:
    found = seen(([3, 0], [3, 0]), ([0, 4], [0, 3]))
    assert found.n == 2
    assert found.snr_db == pytest.approx(10 * math.log10(25 / 1))
    assert found.max_abs == 1
    assert found.cosine == pytest.approx(21 / math.sqrt(25 * 18))
    # mean difference 1 / 4, expected values 3, 0, 0, 4 with mean 7 / 4
    assert found.mean_abs_share == pytest.approx(0.25 / np.std([3, 0, 0, 4]))


def test_the_ends() -> None:
    assert seen(([1, 2], [1, 2])).snr_db == math.inf
    assert seen(([0, 0], [0, 0])).cosine == 1.0
    assert seen(([0, 0], [1, 0])).snr_db == -math.inf
    assert seen(([0, 0], [1, 0])).cosine == 0.0
    assert seen(([2, 2], [2, 2])).mean_abs_share == 0.0
    assert seen(([2, 2], [2, 3])).mean_abs_share == math.inf
    assert seen(([], [])).mean_abs_share == 0.0


@given(st.integers(0, 1000), st.integers(1, 5))
def test_in_pieces_or_at_once_it_is_the_same(seed: int, pieces: int) -> None:
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(60,))
    b = a + rng.normal(scale=0.1, size=60)
    whole, parts = Fidelity(), Fidelity()
    whole.add(a, b)
    for x, y in zip(np.array_split(a, pieces), np.array_split(b, pieces), strict=True):
        parts.add(x, y)
    assert parts.snr_db == pytest.approx(whole.snr_db)
    assert parts.cosine == pytest.approx(whole.cosine)
    assert parts.mean_abs_share == pytest.approx(whole.mean_abs_share)
