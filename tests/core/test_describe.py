from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from edgekd.core.config import Config
from edgekd.core.describe import fields_of, summary_of


class Inner(Config):
    """Inside.

    Attributes:
        flip: Mirror it.
    """

    flip: bool = False


class Base(Config):
    """A base.

    Attributes:
        weight: Factor of
            the term.
    """

    weight: Annotated[float, Field(gt=0)] = 1.0


class Thing(Base):
    """The thing.

    With a second paragraph.

    Attributes:
        mode: How; one of two: this or that.
        sizes: Of each.

            And more.
        maybe: Or not.

    Raises:
        nothing: At all.
    """

    mode: Literal["a", "b"]
    sizes: Annotated[tuple[int, ...], Field(min_length=1)] = (1, 2)
    maybe: Annotated[int, Field(ge=1, le=8)] | None = None
    path: Path = Path("x/y")
    options: dict[str, str | int] = {}
    either: Literal["auto"] | bool = "auto"
    anything: Any = None
    inner: Inner = Inner()
    perhaps: Inner | None = None
    described: Annotated[str, Field(description="By its field.")] = ""


FIELDS = {f.name: f for f in fields_of(Thing)}


def test_the_summary_ends_where_the_sections_begin() -> None:
    assert summary_of(Thing) == "The thing.\n\nWith a second paragraph."
    assert summary_of(type("Bare", (), {})) == ""


@pytest.mark.parametrize(
    ("name", "type_text"),
    [
        ("weight", "float > 0"),
        ("mode", "'a' | 'b'"),
        ("sizes", "list of int (at least 1)"),
        ("maybe", "int >= 1, <= 8 | null"),
        ("path", "path"),
        ("options", "mapping of text | int"),
        ("either", "'auto' | bool"),
        ("anything", "any"),
        ("inner.flip", "bool"),
        ("perhaps", "mapping | null"),
        ("perhaps.flip", "bool"),
        ("described", "text"),
    ],
)
def test_types_are_in_the_words_of_a_recipe(name: str, type_text: str) -> None:
    assert FIELDS[name].type == type_text


def test_every_field_is_there_in_order() -> None:
    assert list(FIELDS)[:3] == ["weight", "mode", "sizes"]
    assert "inner" not in FIELDS  # its own fields say everything


def test_defaults_are_json() -> None:
    assert FIELDS["mode"].required
    assert not FIELDS["sizes"].required
    assert FIELDS["sizes"].default == [1, 2]
    assert FIELDS["path"].default == "x/y"


@pytest.mark.parametrize(
    ("name", "description"),
    [
        ("weight", "Factor of the term."),
        ("mode", "How; one of two: this or that."),
        ("sizes", "Of each. And more."),
        ("maybe", "Or not."),
        ("inner.flip", "Mirror it."),
        ("described", "By its field."),
        ("path", ""),
    ],
)
def test_descriptions_come_from_the_docstrings(name: str, description: str) -> None:
    assert FIELDS[name].description == description


def test_a_class_without_fields_has_none() -> None:
    assert fields_of(type("Plain", (), {})) == []
