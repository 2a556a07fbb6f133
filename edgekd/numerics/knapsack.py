"""One option of every item, of the least total loss that a budget allows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

#: kept states between two items; more are thinned evenly
_MAX_STATES = 1 << 18


def choose_options(
    sizes: Sequence[NDArray[np.int64]],
    losses: Sequence[NDArray[np.float64]],
    budget: int,
    *,
    max_states: int = _MAX_STATES,
) -> list[int] | None:
    """Index of the option chosen for each item; None where even the smallest do not fit.

    A multiple-choice knapsack, solved exactly: dynamic programming over the states (total size,
    total loss) that no other state beats in both (Nemhauser and Ullmann 1969). Beyond
    `max_states` of them one is kept in each of as many equal slices of the budget; the choice is
    then at least as good as the best one under a budget smaller by ``items / max_states`` of it.

    Args:
        sizes: Per item its options' sizes, (options,).
        losses: The same for losses.
        budget: Largest sum of sizes.
        max_states: More take more time and memory.
    """
    rest = sum(int(s.min()) for s in sizes)
    if rest > budget:
        return None
    total, loss = np.zeros(1, np.int64), np.zeros(1)
    steps: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    for size, item in zip(sizes, losses, strict=True):
        rest -= int(size.min())
        new_total = (total[:, None] + size).ravel()
        new_loss = (loss[:, None] + item).ravel()
        order = np.lexsort((new_loss, new_total))
        order = order[new_total[order] <= budget - rest]
        sorted_loss = new_loss[order]
        before = np.minimum.accumulate(np.concatenate([[np.inf], sorted_loss[:-1]]))
        order = order[sorted_loss < before]
        if len(order) > max_states:
            slices = new_total[order] * max_states // (budget + 1)
            last = np.append(slices[1:] != slices[:-1], True)
            last[0] = True  # the smallest always fits
            order = order[last]
        total, loss = new_total[order], new_loss[order]
        steps.append((order // len(size), order % len(size)))
    chosen, state = [], len(total) - 1
    for parents, options in reversed(steps):
        chosen.append(int(options[state]))
        state = int(parents[state])
    return chosen[::-1]
