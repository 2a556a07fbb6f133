"""What codes take when each gets as many bits as its frequency deserves: Huffman's code."""

from __future__ import annotations

import heapq
from itertools import count
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def huffman_lengths(counts: Sequence[int] | NDArray[np.integer]) -> NDArray[np.int64]:
    """Bits of each symbol's codeword; 0 for a symbol that never occurs.

    A lone symbol gets one bit: a word of none could not be told from nothing.

    >>> huffman_lengths([5, 1, 1, 0]).tolist()
    [1, 2, 2, 0]
    """
    order = count()  # ties are broken by age, so that the same counts give the same lengths
    trees = [(int(n), next(order), [s]) for s, n in enumerate(counts) if n > 0]
    lengths = np.zeros(len(counts), np.int64)
    if len(trees) == 1:
        lengths[trees[0][2]] = 1
        return lengths
    heapq.heapify(trees)
    while len(trees) > 1:
        first, _, some = heapq.heappop(trees)
        second, _, others = heapq.heappop(trees)
        joined = some + others
        lengths[joined] += 1
        heapq.heappush(trees, (first + second, next(order), joined))
    return lengths


def huffman_bytes(counts: Sequence[int] | NDArray[np.integer]) -> int:
    """Bytes of all symbols coded, and of the code itself: one length of a byte for each symbol."""
    bits = int((np.asarray(counts, np.int64) * huffman_lengths(counts)).sum())
    return -(-bits // 8) + len(counts)
