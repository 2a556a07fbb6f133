from __future__ import annotations

import itertools
import time

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgekd.numerics.knapsack import choose_options

OPTION = st.tuples(st.integers(0, 30), st.sampled_from([0.0, 0.01, 0.1, 0.5, 1.0, 3.0]))
ITEMS = st.lists(st.lists(OPTION, min_size=1, max_size=4), min_size=1, max_size=5)
Items = list[list[tuple[int, float]]]


def solve(items: Items, budget: int, **more: int) -> list[int] | None:
    sizes = [np.array([size for size, _ in item], np.int64) for item in items]
    losses = [np.array([loss for _, loss in item]) for item in items]
    return choose_options(sizes, losses, budget, **more)


def total(items: Items, chosen: list[int] | tuple[int, ...]) -> tuple[int, float]:
    picked = [item[i] for item, i in zip(items, chosen, strict=True)]
    return sum(size for size, _ in picked), sum(loss for _, loss in picked)


def best(items: Items, budget: int) -> tuple[float, int] | None:
    """(loss, size) of the best choice, by trying all of them."""
    totals = (total(items, c) for c in itertools.product(*(range(len(i)) for i in items)))
    fitting = [(loss, size) for size, loss in totals if size <= budget]
    return min(fitting, default=None)


@given(ITEMS, st.integers(0, 120))
def test_as_good_as_trying_everything(items: Items, budget: int) -> None:
    chosen, known = solve(items, budget), best(items, budget)
    if known is None:
        assert chosen is None
        return
    assert chosen is not None
    size, loss = total(items, chosen)
    assert size <= budget
    assert abs(loss - known[0]) < 1e-9


@given(ITEMS, st.integers(0, 120), st.integers(2, 8))
def test_thinned_states_cost_no_more_than_they_say(
    items: Items, budget: int, max_states: int
) -> None:
    chosen = solve(items, budget, max_states=max_states)
    if best(items, budget) is None:
        assert chosen is None
        return
    assert chosen is not None
    size, loss = total(items, chosen)
    assert size <= budget
    slack = -(-len(items) * (budget + 1) // max_states)
    smaller = best(items, budget - slack)
    if smaller is not None:
        assert loss <= smaller[0] + 1e-9


@given(ITEMS, st.integers(0, 120), st.integers(0, 40))
def test_more_budget_is_never_worse(items: Items, budget: int, more: int) -> None:
    small, large = solve(items, budget), solve(items, budget + more)
    if small is not None:
        assert large is not None
        assert total(items, large)[1] <= total(items, small)[1] + 1e-9


def test_a_network_of_sixty_layers_takes_a_moment() -> None:
    rng = np.random.default_rng(0)
    weights = rng.integers(1_000, 100_000, 60)
    sizes = [np.array([2, 3, 4, 8]) * w // 8 for w in weights]
    losses = [np.exp(-np.array([2, 3, 4, 8]) * rng.uniform(0.3, 2)) for _ in weights]
    started = time.process_time()
    chosen = choose_options(sizes, losses, int(weights.sum() * 4 // 8), max_states=1 << 14)
    assert chosen is not None
    assert len({*chosen}) > 1
    assert time.process_time() - started < 5
