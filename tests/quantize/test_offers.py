from __future__ import annotations

from typing import Any

import pytest

from edgekd.core.config import validate
from edgekd.core.errors import RecipeError
from edgekd.core.types import Scheme
from edgekd.quantize.fold import fold_batch_norms, trace
from edgekd.quantize.offers import budget_bytes, offers
from edgekd.quantize.settings import QuantizeSettings
from tests.quantize.nets import trained_looking
from tests.quantize.test_convert import Shared

SCHEME = Scheme(activations="uint8", bias="float32")


def settings(**fields: Any) -> QuantizeSettings:
    mixed = {"bits": [2, 4, 8], "bits_per_weight": 4.5, **fields.pop("mixed", {})}
    return validate(QuantizeSettings, {"mixed": mixed, **fields}, source="the recipe")


def graph_of(name: str) -> Any:
    return fold_batch_norms(trace(trained_looking(name)))


def test_sizes_are_those_of_the_encodings() -> None:
    (stem, *_, head) = offers(graph_of("residual"), settings(), SCHEME)
    assert (stem.layer, stem.weights) == ("stem", 72)
    # codes, and one float scale for each of 8 channels
    assert stem.sizes == {2: 18 + 32, 4: 36 + 32, 8: 72 + 32}
    assert head.sizes[4] == 160 // 2 + 40
    assert not stem.rule


def test_a_rule_brings_its_own_groups() -> None:
    one = {"layers": "stem", "weights": "minmax", "granularity": {"kind": "per_tensor"}}
    (stem, *_) = offers(graph_of("residual"), settings(rules=[one]), SCHEME)
    assert stem.sizes == {8: 72 + 4}


def test_a_budget_that_nothing_fits_into_says_the_least() -> None:
    tight = settings(mixed={"bits_per_weight": None, "budget": "100B"})
    offered = offers(graph_of("residual"), tight, SCHEME)
    least = sum(o.sizes[2] for o in offered)
    with pytest.raises(RecipeError) as failure:
        budget_bytes(offered, tight)
    assert failure.value.failed.startswith("quantize.mixed.budget")
    assert f"at least {least} bytes" in failure.value.message
    exact = settings(mixed={"bits_per_weight": None, "budget": least})
    assert budget_bytes(offered, exact) == least


def test_an_average_over_all_weights_is_the_same_budget() -> None:
    offered = offers(graph_of("residual"), settings(), SCHEME)
    assert budget_bytes(offered, settings()) == int(4.5 * sum(o.weights for o in offered) / 8)


def test_nothing_left_to_choose() -> None:
    ruled = settings(rules=[{"layers": "*", "weights": "minmax"}])
    with pytest.raises(RecipeError, match="no layer to choose bits for"):
        budget_bytes(offers(graph_of("dense"), ruled, SCHEME), ruled)


def test_a_layer_that_is_called_twice_is_offered_in_float_alone() -> None:
    graph = fold_batch_norms(trace(Shared(same=True).eval()))
    (conv, head) = offers(graph, settings(), SCHEME)
    assert set(conv.sizes) == {None}
    assert "called 2 times" in conv.rule
    assert set(head.sizes) == {2, 4, 8}
    (conv, _) = offers(graph, settings(activation_bits="float"), SCHEME)
    assert set(conv.sizes) == {2, 4, 8}
