from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekd.core.hashing import sha256_arrays, sha256_bytes, sha256_file, sha256_json

# `printf abc | sha256sum`: the test vector of FIPS 180-4
ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_bytes_and_files_have_the_digest_that_sha256sum_prints(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256_bytes(b"abc") == sha256_file(tmp_path / "abc") == ABC


def test_a_file_larger_than_a_read_buffer_has_the_digest_of_its_bytes(tmp_path: Path) -> None:
    data = bytes(range(256)) * 5000
    (tmp_path / "big").write_bytes(data)
    assert sha256_file(tmp_path / "big") == sha256_bytes(data)


def test_json_is_hashed_over_its_compact_sorted_text() -> None:
    # printf '{"a":[1,2.5,null,"\u00e4"],"b":{"c":true}}' | sha256sum, with the escape spelt out
    text = b'{"a":[1,2.5,null,"\\u00e4"],"b":{"c":true}}'
    value = {"b": {"c": True}, "a": [1, 2.5, None, "ä"]}
    assert sha256_json(value) == sha256_bytes(text)


def test_json_hashes_are_golden() -> None:
    # a change of these would make every existing run folder redo all its stages
    assert sha256_json({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    assert sha256_json([1, "x"]) == sha256_bytes(b'[1,"x"]')


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [{"a": float("-inf")}]])
def test_json_without_a_text_of_its_own_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        sha256_json(value)


@given(st.dictionaries(st.text(max_size=3), st.integers(), max_size=5), st.randoms())
def test_the_order_of_keys_does_not_matter(value: dict[str, int], random: object) -> None:
    items = list(value.items())
    random.shuffle(items)  # type: ignore[attr-defined]
    assert sha256_json(dict(items)) == sha256_json(value)


def test_arrays_are_golden() -> None:
    header = b'["w", "<f4", [2, 3]]\n'
    array = np.arange(6, dtype="<f4").reshape(2, 3)
    assert sha256_arrays({"w": array}) == sha256_bytes(header + array.tobytes())
    assert sha256_arrays({}) == sha256_bytes(b"")


@pytest.mark.parametrize(
    "array",
    [
        np.float32(3.0).reshape(()),
        np.zeros((0, 3)),
        np.array(["2020-01-01"], "M8[D]"),
        np.array([True, False]),
        np.arange(4, dtype=">i4"),
    ],
    ids=["no axes", "empty", "dates", "bool", "big-endian"],
)
def test_every_kind_of_array_is_hashed(array: np.ndarray) -> None:
    assert sha256_arrays({"a": array}) == sha256_arrays({"a": array.copy()})


def test_memory_layout_does_not_matter_and_everything_else_does() -> None:
    a = np.arange(12, dtype=np.int32).reshape(3, 4)
    base = sha256_arrays({"a": a})
    assert sha256_arrays({"a": np.asfortranarray(a)}) == base
    assert sha256_arrays({"a": np.repeat(a, 2, axis=1)[:, ::2]}) == base
    changed = a.copy()
    changed[2, 3] += 1
    others = [{"b": a}, {"a": a.T}, {"a": a.astype(np.uint32)}, {"a": changed}, {"a": a, "b": a}]
    assert base not in {sha256_arrays(o) for o in others}


def test_names_cannot_imitate_a_header() -> None:
    a = np.zeros(1, np.uint8)
    assert sha256_arrays({'w", "|u1", [1]]\n': a}) != sha256_arrays({"w": a})


def test_python_objects_are_refused() -> None:
    with pytest.raises(TypeError, match="'a' holds Python objects"):
        sha256_arrays({"a": np.array([object()])})
