from __future__ import annotations

from typing import Annotated, Any, Literal, Self

import pytest
from pydantic import Field, ValidationError, field_validator, model_validator

from edgekd.core.complaints import NestedComplaintsError, complaints, nearest
from edgekd.core.config import Config


class Block(Config):
    kind: Literal["block"] = "block"
    size: Annotated[int, Field(ge=2)]


class Channel(Config):
    kind: Literal["channel"] = "channel"
    axis: int = 0


class Plain(Config):
    alpha: int = 1


class Checked(Config):
    beta: int = 1

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.beta > 9:
            raise ValueError(f"beta is {self.beta}, more than 9")
        return self


Tagged = Annotated[Block | Channel, Field(discriminator="kind")]


class Everything(Config):
    tagged: Tagged | None = None
    many: list[Tagged] = []
    pair: tuple[Plain, Checked] | None = None
    by_name: dict[str, Plain] = {}
    either: Plain | Checked | str | None = None
    mixed: Plain | Tagged | None = None
    mode: Literal["auto"] | bool = "auto"
    checked: Checked = Checked()
    plugin: Any = None

    @field_validator("plugin")
    @classmethod
    def _nested(cls, value: Any) -> Any:
        if value is not None:
            raise NestedComplaintsError([("weight", "is required"), ("", "is odd")])
        return value


def found(value: Any) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        Everything.model_validate(value)
    return [f"{path}: {message}" for path, message in complaints(caught.value, Everything)]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (
            {"tagged": {"kind": "block", "sise": 3}},
            [
                "tagged.size: is required",
                "tagged.sise: no such field. Did you mean 'size'? Known: kind, size",
            ],
        ),
        (
            {"many": [{"kind": "channel"}, {"kind": "channel", "axes": 1}]},
            ["many.1.axes: no such field. Did you mean 'axis'? Known: axis, kind"],
        ),
        (
            {"many": [{"kind": "blok"}, {}]},
            [
                "many.0.kind: no such kind. Did you mean 'block'? Known: block, channel",
                "many.1.kind: is required",
            ],
        ),
        (
            {"pair": [{"alfa": 1}, {"bet": 1}]},
            [
                "pair.0.alfa: no such field. Did you mean 'alpha'? Known: alpha",
                "pair.1.bet: no such field. Did you mean 'beta'? Known: beta",
            ],
        ),
        (
            {"by_name": {"x": {"alfa": 1}}},
            ["by_name.x.alfa: no such field. Did you mean 'alpha'? Known: alpha"],
        ),
        (
            {"either": {"bet": 1}},
            [
                "either.bet: no such field. Known: alpha; or "
                "no such field. Did you mean 'beta'? Known: beta"
            ],
        ),
        (
            {"mixed": {"kind": "block", "size": 1}},
            [
                "mixed.kind: no such field. Known: alpha",
                "mixed.size: no such field. Known: alpha; or "
                "Input should be greater than or equal to 2, got 1",
            ],
        ),
        (
            {"mode": "yess"},
            [
                "mode: Input should be 'auto', got 'yess'; or Input should be a valid boolean, "
                "unable to interpret input, got 'yess'"
            ],
        ),
        ({"checked": {"beta": 10}}, ["checked: beta is 10, more than 9"]),
        ({"checked": 3}, ["checked: should be a mapping of `name: value` lines, got 3"]),
        ({"plugin": 1}, ["plugin.weight: is required", "plugin: is odd"]),
        ([1], ["(top): should be a mapping of `name: value` lines, got [1]"]),
        ({1: 2}, ["1: Keys should be strings, got 1"]),
    ],
    ids=lambda v: next(iter(v), None) if isinstance(v, dict) else None,
)
def test_the_path_is_the_users_and_the_nearest_name_is_given(
    value: Any, expected: list[str]
) -> None:
    assert found(value) == expected


def test_a_long_value_is_shortened() -> None:
    [line] = found({"checked": {"beta": "x" * 10_000}})
    assert len(line) < 200
    assert "xxx...xxx" in line


def test_nearest_lists_all_names_sorted() -> None:
    assert nearest("resnt", ["resnet", "mlp"]) == ". Did you mean 'resnet'? Known: mlp, resnet"
    assert nearest("qqq", ["b", "a"]) == ". Known: a, b"
    assert nearest("x", []) == ". Known: none"
