from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgekd.numerics.entropy import huffman_bytes, huffman_lengths

_COUNTS = st.lists(st.integers(0, 1000), min_size=1, max_size=64).filter(any)


def test_a_code_worked_out_by_hand() -> None:
    # 45 13 12 16 9 5: the example of Cormen et al., Introduction to Algorithms, 16.3
    assert huffman_lengths([45, 13, 12, 16, 9, 5]).tolist() == [1, 3, 3, 3, 4, 4]
    assert huffman_bytes([45, 13, 12, 16, 9, 5]) == 224 / 8 + 6


def test_a_lone_symbol_still_takes_a_bit() -> None:
    assert huffman_lengths([0, 7]).tolist() == [0, 1]
    assert huffman_bytes([0, 16]) == 2 + 2


@given(_COUNTS)
def test_the_code_is_complete_and_as_short_as_entropy_allows(counts: list[int]) -> None:
    lengths, array = huffman_lengths(counts), np.array(counts)
    used = array > 0
    assert (lengths[~used] == 0).all()
    assert (lengths[used] > 0).all()
    if used.sum() > 1:
        assert np.exp2(-lengths[used].astype(float)).sum() == 1  # Kraft's equality
    shares = array[used] / array.sum()
    entropy = float(-(shares * np.log2(shares)).sum())
    mean = float((shares * lengths[used]).sum())
    assert entropy - 1e-9 <= mean <= entropy + 1 + 1e-9


@given(_COUNTS)
def test_the_same_counts_give_the_same_code(counts: list[int]) -> None:
    assert np.array_equal(huffman_lengths(counts), huffman_lengths(counts))
