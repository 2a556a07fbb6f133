from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor, nn

from edgekd.core.config import validate
from edgekd.core.errors import RecipeError
from edgekd.quantize.fold import fold_batch_norms, trace
from edgekd.quantize.placement import describe
from edgekd.quantize.quantizers._contract import QUANTIZERS
from edgekd.quantize.rules import Layer, Rule, choose, in_order, matching
from edgekd.quantize.settings import QuantizeSettings
from tests.quantize.nets import trained_looking
from tests.quantize.test_convert import aware

LAYERS = [Layer("stem"), Layer("a.dw", depthwise=True), Layer("a.pw"), Layer("b.pw"), Layer("fc")]


def rules(*pairs: tuple[str, Any]) -> Any:
    return in_order((), [Rule(layers=layers, weights=weights) for layers, weights in pairs])


@pytest.mark.parametrize(
    ("pattern", "paths"),
    [
        ("first", ["stem"]),
        ("last", ["fc"]),
        ("depthwise", ["a.dw"]),
        ("a.*", ["a.dw", "a.pw"]),
        ("fc", ["fc"]),
        ("re:^[ab]\\.pw$", ["a.pw", "b.pw"]),
        ("re:w", ["a.dw", "a.pw", "b.pw"]),
        ("A.*", []),
    ],
)
def test_patterns(pattern: str, paths: list[str]) -> None:
    assert matching(LAYERS, pattern) == paths


def test_the_last_match_wins() -> None:
    chosen = choose(LAYERS, rules(("*", {"name": "lsq", "bits": 4}), ("*.pw", "float"),
                                  ("b.*", {"name": "mse", "bits": 2})))  # fmt: skip
    bits = {path: c.quantizer and c.quantizer.bits for path, c in chosen.items()}
    assert bits == {"stem": 4, "a.dw": 4, "a.pw": None, "b.pw": 2, "fc": 4}
    assert chosen["a.pw"].reason == "kept in float by the rule '*.pw'"


def test_keep_float_stands_in_front_of_the_rules() -> None:
    placed = in_order(("fc",), [Rule(layers="last", weights="mse")])
    assert choose(LAYERS, placed)["fc"].quantizer is not None


class Crossed(nn.Module):
    """Registered in another order than it is executed in, and with a branch."""

    def __init__(self) -> None:
        super().__init__()
        self.ends = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 2)])
        self.right, self.left = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 4) -> (B, 2)."""
        x = self.ends[0](x)
        out: Tensor = self.ends[1](self.left(x) + self.right(x))
        return out


def test_first_and_last_are_layers_in_execution_order() -> None:
    crossed = describe(fold_batch_norms(trace(Crossed())))
    assert [layer.path for layer in crossed] == ["ends.0", "left", "right", "ends.1"]
    assert matching(crossed, "last") == ["ends.1"]
    net = trained_looking("residual")
    layers = describe(fold_batch_norms(trace(net)))
    assert [layer.path for layer in layers] == ["stem", "conv1", "conv2", "shortcut", "head"]
    deep = describe(fold_batch_norms(trace(trained_looking("depthwise"))))
    assert [layer.path for layer in deep if layer.depthwise] == ["body.3"]
    assert not deep[0].depthwise  # one input channel alone makes no depthwise convolution


def test_rules_reach_the_frozen_student() -> None:
    student = aware(
        trained_looking("residual"),
        weights={"name": "minmax", "bits": 8},
        rules=[
            {"layers": "conv*", "weights": {"name": "lsq", "bits": 4}},
            {"layers": "re:^(stem|head)$", "weights": "float"},
            {"layers": "first", "weights": {"name": "mse", "bits": 6}},
        ],
    ).freeze()
    bits = {path: encoding.bits for path, encoding in student.weights.items()}
    assert bits == {"stem": 6, "conv1": 4, "conv2": 4, "shortcut": 8}
    assert student.skipped == {"head": "kept in float by the rule 're:^(stem|head)$'"}


def test_a_rule_that_matches_nothing_is_refused() -> None:
    with pytest.raises(RecipeError) as caught:
        choose(LAYERS, rules(("first", "float"), ("stage9.*", "float")))
    assert "quantize.rules.1.layers: the rule 'stage9.*' matches no layer." in str(caught.value)
    assert "expected: one of stem, a.dw, a.pw, b.pw, fc" in str(caught.value)
    with pytest.raises(RecipeError, match="the rule 'depthwise' matches no layer"):
        choose(LAYERS[:1], rules(("depthwise", "float")))


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ({"layers": "re:(", "weights": "float"}, "rules.0.layers: is no regular expression"),
        ({"layers": "", "weights": "float"}, "rules.0.layers: should name layers, got ''"),
        ({"layers": "first"}, "rules.0.weights: is required"),
        (
            {"layers": "first", "weights": "flaot"},
            "rules.0.weights: No quantizer named 'flaot'. Did you mean 'float'? Known: ",
        ),
        (
            {"layers": "first", "weights": {"name": "mse", "bits": 1}},
            "rules.0.weights.bits: Input should be greater than or equal to 2, got 1",
        ),
        ({"layer": "first", "weights": "float"}, "rules.0.layer: no such field. Did you mean"),
    ],
)
def test_errors_carry_the_path_in_the_recipe(rule: dict[str, Any], text: str) -> None:
    with pytest.raises(RecipeError) as caught:
        validate(QuantizeSettings, {"rules": [rule]}, source="recipe")
    assert text in str(caught.value)


def test_keep_float_reads_the_same_patterns() -> None:
    with pytest.raises(RecipeError, match=r"keep_float\.0: is no regular expression"):
        validate(QuantizeSettings, {"keep_float": ["re:["]}, source="recipe")


def test_rules_are_written_back_and_counted_as_a_need() -> None:
    written = [
        {"layers": "first", "weights": "float", "granularity": None},
        {
            "layers": "last",
            "weights": {"name": "mse", "bits": 4, "refresh_steps": 100},
            "granularity": {"kind": "per_block", "size": 64},
        },
    ]
    settings = validate(QuantizeSettings, {"rules": written}, source="recipe")
    assert settings.model_dump(mode="json")["rules"] == written
    assert settings.needs()["rules"] == written
    again = validate(QuantizeSettings, settings.model_dump(mode="json"), source="recipe")
    assert again == settings


def test_no_weight_exceeds_what_a_target_is_held_to() -> None:
    values = {
        "weights": "mse",
        "keep_float": ["stem"],
        "rules": [
            {"layers": "first", "weights": {"name": "lsq", "bits": 8}},
            {"layers": "last", "weights": {"name": "minmax", "bits": 4}},
        ],
        "mixed": {"bits": [4, 7, 8], "bits_per_weight": 6},
    }
    asked = validate(QuantizeSettings, values, source="the recipe")
    held = asked.within(7)
    assert QUANTIZERS.spec_of(held.weights) == {**QUANTIZERS.spec_of(asked.weights), "bits": 7}
    assert [r.weights.bits for r in held.rules] == [7, 4]
    assert held.mixed is not None
    assert held.mixed.bits == (4, 7)
    assert held.keep_float == asked.keep_float
    assert asked.within(8) == asked
