from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from edgekd.core.errors import RecipeError
from edgekd.quantize.fold import fold_batch_norms, trace
from edgekd.quantize.mixed import allocate, allocate_time
from edgekd.quantize.offers import Offer, loss_increases, offers
from edgekd.quantize.placement import place
from tests.quantize.test_offers import SCHEME, graph_of, settings


def test_layers_under_rules_are_counted_and_left_alone() -> None:
    chosen = settings(
        keep_float=["stem"], rules=[{"layers": "last", "weights": {"name": "minmax", "bits": 8}}]
    )
    graph = graph_of("residual")
    offered = {o.layer: o for o in offers(graph, chosen, SCHEME)}
    assert offered["stem"].sizes == {None: 4 * 72}
    assert offered["head"].sizes == {8: 160 + 40}
    assert "'stem'" in offered["stem"].rule
    free = dict(
        loss_increases(graph, tuple(offered.values()), chosen, SCHEME, lambda _module: 0.0)
    )
    assert free.keys() == offered.keys() - {"stem", "head"}
    found = allocate(tuple(offered.values()), free, 10_000)
    assert [(x.layer, x.bits) for x in found.layers if not x.options] == [
        ("stem", None),
        ("head", 8),
    ]
    # written out as rules, the user's own still win
    rules = (*found.rules(chosen.weights), *chosen.rules)
    placed = place(graph, rules=chosen.model_copy(update={"rules": rules}).placed_rules())
    bits = {path: c.quantizer.bits for path, c in placed.chosen.items()}
    assert bits == {x.layer: x.bits for x in found.layers if x.bits is not None}
    assert set(placed.skipped) == {"stem"}


class Planted(nn.Module):
    """Three equal layers; the middle one tells 0.9 and 1.0 apart, which few bits cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(16, 16, bias=False) for _ in range(3))
        with torch.no_grad():
            for layer in (self.a, self.b, self.c):
                layer.weight.copy_(torch.eye(16))
            self.b.weight.copy_(torch.eye(16) - 0.06 * torch.ones(16, 16).triu(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.c(self.b(self.a(x)))
        return out


def test_a_planted_sensitive_layer_gets_the_bits() -> None:
    graph = fold_batch_norms(trace(Planted().eval()))
    inputs = torch.from_numpy(np.random.default_rng(0).normal(size=(256, 16)).astype(np.float32))
    wanted = graph(inputs).detach()

    def loss(module: nn.Module) -> float:
        with torch.no_grad():
            return F.mse_loss(module(inputs), wanted).item()

    chosen = settings()
    offered = offers(graph, chosen, SCHEME)
    before = {k: v.clone() for k, v in graph.state_dict().items()}
    increases = dict(loss_increases(graph, offered, chosen, SCHEME, loss))
    assert all(torch.equal(v, before[k]) for k, v in graph.state_dict().items())
    assert increases["b"][2] > 100 * max(increases["a"][2], increases["c"][2], 1e-9)
    least, one_more = 3 * (64 + 64), 3 * (64 + 64) + 192
    assert [x.bits for x in allocate(offered, increases, least).layers] == [2, 2, 2]
    found = allocate(offered, increases, one_more)
    assert [x.bits for x in found.layers] == [2, 8, 2]
    assert found.size_bytes == one_more
    assert found.predicted_increase == pytest.approx(
        increases["a"][2] + increases["b"][8] + increases["c"][2]
    )
    assert found.layers[1].why.startswith("4 bits would take 128 B less and change the loss by +")


def test_a_gain_from_fewer_bits_is_no_promise() -> None:
    offered = [Offer("a", 8, {2: 2, 4: 4}), Offer("b", 8, {2: 2, 4: 4})]
    increases = {"a": {2: 0.0, 4: -1.0}, "b": {2: 0.5, 4: 0.1}}
    assert [x.bits for x in allocate(offered, increases, 6).layers] == [2, 4]


@pytest.mark.parametrize(
    ("mixed", "complaint"),
    [
        ({"bits_per_weight": None}, "give one of budget, bits_per_weight and latency"),
        ({"budget": "31KiB"}, "give one of budget, bits_per_weight and latency"),
        ({"latency": "2ms"}, "give one of budget, bits_per_weight and latency"),
        ({"bits_per_weight": None, "latency": "2KiB"}, "not a latency"),
        ({"bits_per_weight": None, "latency": "0ms"}, "not a latency"),
        ({"bits": [1, 4]}, "offers 1, which the quantizer 'minmax' does not have"),
        ({"bits": []}, "mixed.bits"),
        ({"bits_per_weight": None, "budget": "31 apples"}, "not a size"),
        ({"bits_per_weight": None, "budget": "0B"}, "not a size"),
    ],
)
def test_settings_that_make_no_sense(mixed: dict[str, Any], complaint: str) -> None:
    with pytest.raises(RecipeError, match=complaint):
        settings(mixed=mixed)


def test_widths_are_sorted_and_a_size_has_a_unit() -> None:
    read = settings(mixed={"bits": [8, 2, 4, 2], "bits_per_weight": None, "budget": "31KiB"})
    assert read.mixed is not None
    assert (read.mixed.bits, read.mixed.budget) == ((2, 4, 8), 31 * 1024)


def test_a_latency_has_a_unit_and_offers_float() -> None:
    read = settings(mixed={"bits_per_weight": None, "latency": "850us"})
    assert read.mixed is not None
    assert read.mixed.latency == 0.85
    (stem, *_) = offers(graph_of("residual"), read, SCHEME)
    assert stem.sizes[None] == 4 * 72


TIMED = st.lists(
    st.fixed_dictionaries({2: st.integers(-9, 9), 8: st.just(0), None: st.integers(-9, 9)}),
    min_size=1,
    max_size=4,
)
LOSSES = st.lists(
    st.fixed_dictionaries({2: st.integers(0, 9), 8: st.integers(0, 9)}), min_size=4, max_size=4
)


@given(TIMED, LOSSES, st.integers(-40, 40))
def test_within_a_time_no_other_choice_loses_less(
    timed: list[dict[int | None, int]], losses: list[dict[int, int]], limit: int
) -> None:
    names = [f"layer{i}" for i in range(len(timed))]
    offered = [Offer(name, 8, {2: 2, 8: 8, None: 32}) for name in names]
    slower = dict(zip(names, timed, strict=True))
    increases = {n: {b: float(v) for b, v in x.items()} for n, x in zip(names, losses)}  # noqa: B905
    wanted = min(
        (
            sum(0.0 if b is None else increases[n][b] for n, b in zip(names, bits, strict=True))
            for bits in itertools.product((2, 8, None), repeat=len(names))
            if any(b is not None for b in bits)
            and sum(slower[n][b] for n, b in zip(names, bits, strict=True)) <= limit
        ),
        default=None,
    )
    found = allocate_time(offered, increases, slower, limit)
    if found is None:
        assert wanted is None
        return
    assert found.predicted_increase == wanted
    assert found.slower_ns <= limit
    assert any(x.bits is not None for x in found.layers)


def test_float_is_written_out_as_a_rule_and_explained() -> None:
    offered = [Offer("a", 8, {8: 8, None: 32}), Offer("b", 8, {8: 8, None: 32})]
    slower: dict[str, dict[int | None, int]] = {"a": {8: 0, None: 3_000}, "b": {8: 0}}
    found = allocate_time(offered, {"a": {8: 0.5}, "b": {8: 0.5}}, slower, 5_000)
    assert found is not None
    assert [x.bits for x in found.layers] == [None, 8]
    assert [len(x.options) for x in found.layers] == [2, 1]  # float was not timed for b
    assert found.rules(settings().weights)[0].weights == "float"
    why = "8 bits would take 24 B less, 3.0 us less and change the loss by +0.5000"
    assert found.layers[0].why == why
    assert found.layers[1].why == "the only width offered"
