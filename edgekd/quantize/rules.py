"""Ordered rules: which layer gets which weight quantizer; the last rule that matches wins."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator

from edgekd.core.config import Config
from edgekd.core.errors import RecipeError
from edgekd.core.types import Granularity
from edgekd.quantize.quantizers._contract import QUANTIZERS, Quantizer

if TYPE_CHECKING:
    Weights = Quantizer | Literal["float"]
else:
    Weights = QUANTIZERS.field(words=("float",))

_EXPRESSION = "re:"


def _readable(pattern: str) -> str:
    if not pattern.removeprefix(_EXPRESSION):
        raise ValueError(f"should name layers, got {pattern!r}")
    if pattern.startswith(_EXPRESSION):
        try:
            re.compile(pattern.removeprefix(_EXPRESSION))
        except re.error as e:
            raise ValueError(f"is no regular expression: {e}, got {pattern!r}") from e
    return pattern


Pattern = Annotated[str, AfterValidator(_readable)]


class Rule(Config):
    """One entry of `quantize.rules`.

    Attributes:
        layers: first, last (of the layers with weights, as they are executed), depthwise, a
            shell wildcard over layer paths, or re: and a regular expression that is searched in
            them. A layer that is called one of the three words is meant by ``re:^first$``.
        weights: A weight quantizer, or the word float.
        granularity: Which of the layer's weights share a scale; null for the recipe's.
    """

    layers: Pattern
    weights: Weights
    granularity: Granularity | None = None


@dataclass(frozen=True, slots=True)
class Layer:
    """What rules can tell of a layer with weights.

    Attributes:
        path: Dotted path in the graph.
        depthwise: A convolution with one input channel per group, several groups.
        calls: How often it is executed.
    """

    path: str
    depthwise: bool = False
    calls: int = 1


@dataclass(frozen=True, slots=True)
class PlacedRule:
    """A rule and its place in the recipe, for errors and reasons.

    Attributes:
        field: E.g. ``quantize.rules.0.layers``.
        called: What the pattern is called in texts: "pattern" or "rule".
        rule: As the recipe has it.
    """

    field: str
    called: Literal["pattern", "rule"]
    rule: Rule


@dataclass(frozen=True, slots=True)
class Choice:
    """What the rules chose for one layer.

    Attributes:
        quantizer: None for float.
        reason: Why, for the report.
        granularity: None for the recipe's.
    """

    quantizer: Any
    reason: str
    granularity: Any = None


def in_order(keep_float: Sequence[str], rules: Sequence[Rule]) -> tuple[PlacedRule, ...]:
    """`keep_float` is short for rules with `weights: float` in front of the others."""
    short = [
        PlacedRule("quantize.keep_float", "pattern", Rule(layers=p, weights="float"))
        for p in keep_float
    ]
    long = [PlacedRule(f"quantize.rules.{i}.layers", "rule", r) for i, r in enumerate(rules)]
    return (*short, *long)


def choose(layers: Sequence[Layer], rules: Sequence[PlacedRule]) -> dict[str, Choice]:
    """Path -> choice of every layer that a rule matches; the last one wins.

    Args:
        layers: All with weights, in execution order.
        rules: In order.

    Raises:
        RecipeError: A rule matches no layer.
    """
    chosen: dict[str, Choice] = {}
    for placed in rules:
        pattern, weights = placed.rule.layers, placed.rule.weights
        hits = matching(layers, pattern)
        if not hits:
            raise RecipeError(
                f"{placed.field}: the {placed.called} {pattern!r} matches no layer.",
                expected=f"one of {', '.join(layer.path for layer in layers) or 'none'}",
                todo="use the layer's path, a wildcard such as 'stage1.*', re: with a regular"
                " expression, or first, last, depthwise",
            )
        is_float = weights == "float"
        what = "kept in float" if is_float else "quantizer chosen"
        reason = f"{what} by the {placed.called} {pattern!r}"
        choice = Choice(None if is_float else weights, reason, placed.rule.granularity)
        chosen |= dict.fromkeys(hits, choice)
    return chosen


def matching(layers: Sequence[Layer], pattern: str) -> list[str]:
    """Paths of the layers that a pattern means, in execution order."""
    paths = [layer.path for layer in layers]
    if pattern == "first":
        return paths[:1]
    if pattern == "last":
        return paths[-1:]
    if pattern == "depthwise":
        return [layer.path for layer in layers if layer.depthwise]
    if pattern.startswith(_EXPRESSION):
        expression = re.compile(pattern.removeprefix(_EXPRESSION))
        return [path for path in paths if expression.search(path)]
    return [path for path in paths if fnmatch.fnmatchcase(path, pattern)]
