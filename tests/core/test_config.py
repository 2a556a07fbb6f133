from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from edgekd.core.config import (
    MAX_YAML_BYTES,
    MAX_YAML_NODES,
    Config,
    dump_yaml,
    load_yaml,
    parse_yaml,
    validate,
)
from edgekd.core.errors import RecipeError

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)
)
MERGE_BOMB = "a0: &a0 {k: v}\n" + "".join(
    f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}\n" for i in range(1, 10)
)


def refusal(text: str) -> RecipeError:
    with pytest.raises(RecipeError) as caught:
        parse_yaml(text, source="my.yaml")
    return caught.value


def test_plain_yaml_is_read() -> None:
    assert parse_yaml("a: 1\nb: [1.5, x, true, null]\nc: {d: 1e-3}", source="s") == {
        "a": 1,
        "b": [1.5, "x", True, None],
        "c": {"d": 1e-3},
    }


def test_a_few_aliases_and_a_merge_are_fine() -> None:
    text = "a: &a {x: 1, y: 2}\nb: *a\nc: {<<: *a, y: 3}"
    assert parse_yaml(text, source="s")["c"] == {"x": 1, "y": 3}


@pytest.mark.parametrize(
    "text",
    ["a: 1\nb: 2\na: 3", "x:\n  a: 1\n  a: 1", "{a: 1, a: 2}"],
    ids=["top", "nested", "flow"],
)
def test_a_repeated_key_is_refused(text: str) -> None:
    error = refusal(text)
    assert error.failed == "my.yaml gives a key twice."
    assert 'found duplicate key "a"' in error.got
    assert "(line " in error.got
    assert error.todo == "keep one of the two lines"


@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.system", "!!python/name:os.system", "!mine", "!import_call"]
)
def test_a_tag_is_refused_and_nothing_is_called(tag: str) -> None:
    error = refusal(f"ok: 1\na: {tag} ['touch /tmp/edgekd-was-here']")
    assert error.failed == "my.yaml is not YAML that edgekd reads."
    assert error.expected == "plain values, lists and mappings; no tags"
    assert "could not determine a constructor for the tag" in error.got
    assert "(line 2)" in error.got
    assert not Path("/tmp/edgekd-was-here").exists()


@pytest.mark.parametrize("text", [BOMB, MERGE_BOMB], ids=["lists", "merges"])
def test_aliases_that_expand_too_much_are_refused(text: str) -> None:
    error = refusal(text)
    assert error.failed == "my.yaml holds aliases (`*name`) that expand to too much."
    assert str(MAX_YAML_NODES) in error.expected
    assert error.got.endswith(" values")


@pytest.mark.parametrize("text", ["a: &a [*a]", "a: &a {<<: *a}", "a: &a {b: [c, *a]}"])
def test_an_alias_inside_itself_is_refused(text: str) -> None:
    assert refusal(text).got == "an alias inside itself"


@pytest.mark.parametrize(
    "text",
    ["a: [1", "a: b: c", "\ta: 1", "a: 'x\0'", "---\na: 1\n---\nb: 2", "{" * 1000, "a: *b"],
    ids=["open", "colons", "tab", "null", "two documents", "deep", "no anchor"],
)
def test_what_is_not_yaml_is_refused(text: str) -> None:
    error = refusal(text)
    assert error.failed == "my.yaml is not YAML that edgekd reads."
    assert len(error.got) > 10


@pytest.mark.parametrize(
    ("text", "got"),
    [("", "nothing"), ("- 1", "list"), ("x", "str"), ("# only a comment", "nothing")],
)
def test_only_a_mapping_is_accepted(text: str, got: str) -> None:
    error = refusal(text)
    assert error.failed == "my.yaml does not hold a mapping at its top."
    assert error.expected == "`name: value` lines"
    assert error.got == got


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        load_yaml(tmp_path / "my.yaml")
    assert caught.value.failed == f"There is no file '{tmp_path / 'my.yaml'}'."
    assert "edgekd init" in caught.value.todo


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="cannot be read") as caught:
        load_yaml(tmp_path)
    assert caught.value.got == "Is a directory"


def test_bytes_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_bytes(b"a: \xff\xfe")
    with pytest.raises(RecipeError) as caught:
        load_yaml(tmp_path / "my.yaml")
    assert caught.value.failed == f"{tmp_path / 'my.yaml'} cannot be read."
    assert caught.value.expected == "a YAML file in UTF-8"
    assert "can't decode byte 0xff in position 3" in caught.value.got


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_bytes(b"\xef\xbb\xbfa: 1\r\nb: 2\r\n")
    assert load_yaml(tmp_path / "my.yaml") == {"a": 1, "b": 2}


def test_a_file_too_large_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_bytes(b"#" * MAX_YAML_BYTES)
    with pytest.raises(RecipeError, match="does not hold a mapping"):
        load_yaml(path)
    path.write_bytes(b"#" * (MAX_YAML_BYTES + 1))
    with pytest.raises(RecipeError, match="too large") as caught:
        load_yaml(path)
    assert caught.value.expected == f"at most {MAX_YAML_BYTES} bytes"


def test_a_device_without_end_is_refused_too() -> None:
    with pytest.raises(RecipeError, match="too large"):
        load_yaml(Path("/dev/zero"))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False)
    # the characters that YAML allows, less those that end a line, which YAML folds
    | st.text(
        st.characters(min_codepoint=0x20, max_codepoint=0xD7FF, exclude_categories=("C", "Z"))
    ),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text("abcdefgh", min_size=1), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(value=st.dictionaries(st.text("abcdefgh", min_size=1), JSON, max_size=5))
def test_dumped_yaml_reads_back_equal_and_in_order(value: dict[str, object]) -> None:
    back = parse_yaml(dump_yaml(value), source="dumped")
    assert back == value
    assert list(back) == list(value)


class Inner(Config):
    epochs: int = 1
    rate: float = 0.1


class Outer(Config):
    name: str
    train: Inner = Inner()


def test_validate_gives_the_frozen_model() -> None:
    outer = validate(Outer, {"name": "x", "train": {"epochs": 3}}, source="my.yaml")
    assert outer.train.epochs == 3
    with pytest.raises(ValidationError, match="frozen"):
        outer.name = "y"  # type: ignore[misc]


def test_validate_lists_every_complaint_with_its_path() -> None:
    value = {"train": {"epoch": 3, "rate": "fast"}, "seeed": 1}
    with pytest.raises(RecipeError) as caught:
        validate(Outer, value, source="my.yaml")
    assert caught.value.message.splitlines() == [
        "my.yaml is not valid.",
        "  got:      name: is required",
        "            train.rate: Input should be a valid number, unable to parse string as a "
        "number, got 'fast'",
        "            train.epoch: no such field. Did you mean 'epochs'? Known: epochs, rate",
        "            seeed: no such field. Known: name, train",
    ]


@pytest.mark.parametrize("rate", [float("nan"), float("inf"), ".nan"])
def test_a_config_refuses_numbers_that_are_none(rate: object) -> None:
    with pytest.raises(RecipeError, match=r"train\.rate: Input should be a (finite|valid) number"):
        validate(Outer, {"name": "x", "train": {"rate": rate}}, source="my.yaml")
