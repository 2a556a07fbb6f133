from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekd.core.errors import DataError, RecipeError
from edgekd.core.types import TensorSpec
from edgekd.profile.inputs import (
    batch_size,
    load_feeds,
    make_feeds,
    parse_shapes,
    save_feeds,
)

IMAGE = TensorSpec("image", "float32", (None, 3, 8, 8))
FIXED = TensorSpec("pair", "float32", (2, 4))
OPEN = TensorSpec("photo", "float32", (None, 3, None, None))
TOKENS = TensorSpec("tokens", "int64", (None, 4))
SCALAR = TensorSpec("rate", "int64", ())


def one(feeds: list) -> dict[str, np.ndarray]:
    assert len(feeds) == 1
    return feeds[0]


def test_random_feeds_have_the_models_types_and_a_batch_of_one() -> None:
    specs = (IMAGE, FIXED, TOKENS, SCALAR, TensorSpec("mask", "bool", (1, 2)))
    feeds = make_feeds(specs, {}, seed=0, count=3)
    assert len(feeds) == 3
    shapes = {name: (a.dtype.name, a.shape) for name, a in feeds[0].items()}
    assert shapes == {
        "image": ("float32", (1, 3, 8, 8)),
        "pair": ("float32", (2, 4)),
        "tokens": ("int64", (1, 4)),
        "rate": ("int64", ()),
        "mask": ("bool", (1, 2)),
    }
    assert all(set(np.unique(f["tokens"])) <= {0, 1} for f in feeds)
    assert not np.array_equal(feeds[0]["image"], feeds[1]["image"])


def test_a_seed_gives_the_same_feeds_again() -> None:
    a, b, c = (one(make_feeds([IMAGE], {}, seed=s, count=1))["image"] for s in (1, 1, 2))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


def test_given_shapes_fill_open_axes() -> None:
    feeds = one(make_feeds([OPEN], {"photo": (2, 3, 5, 6)}, seed=0, count=1))
    assert feeds["photo"].shape == (2, 3, 5, 6)


def test_open_axes_are_all_listed_with_what_to_type() -> None:
    words = TensorSpec("words", "int32", (None, None))
    with pytest.raises(RecipeError) as caught:
        make_feeds([OPEN, IMAGE, words], {}, seed=0, count=1)
    error = caught.value
    assert error.failed == "The model leaves the shape of its inputs open."
    assert error.got == "photo: ? x 3 x ? x ?; words: ? x ?"
    assert error.todo == ("give --shape photo=1x3x320x320 --shape words=1x16 with your own sizes")


@pytest.mark.parametrize("shape", [(1, 4, 5, 6), (1, 3, 5), ()])
def test_a_shape_that_contradicts_the_model(shape: tuple[int, ...]) -> None:
    with pytest.raises(RecipeError, match="does not fit the model") as caught:
        make_feeds([OPEN], {"photo": shape}, seed=0, count=1)
    assert caught.value.expected == "? x 3 x ? x ?"


def test_a_shape_for_an_unknown_input() -> None:
    with pytest.raises(RecipeError, match="Did you mean 'image'"):
        make_feeds([IMAGE], {"imgae": (1, 3, 8, 8)}, seed=0, count=1)


def test_text_cannot_be_made_up() -> None:
    with pytest.raises(RecipeError, match="holds object") as caught:
        make_feeds([TensorSpec("words", "object", (1,))], {}, seed=0, count=1)
    assert "--inputs" in caught.value.todo


def test_shapes_are_parsed() -> None:
    assert parse_shapes(["a=1x3x8x8", "b/c=0x2", "d=e=5", "s="]) == {
        "a": (1, 3, 8, 8),
        "b/c": (0, 2),
        "d=e": (5,),
        "s": (),
    }


@given(st.dictionaries(st.text(min_size=1), st.lists(st.integers(0, 9999)).map(tuple)))
def test_any_shape_survives_its_text(shapes: dict[str, tuple[int, ...]]) -> None:
    texts = [f"{name}={'x'.join(map(str, sizes))}" for name, sizes in shapes.items()]
    assert parse_shapes(texts) == shapes


@pytest.mark.parametrize("text", ["", "a", "=1", "a=1x", "a=-1", "a=1*3", "a=1.5", "a=x", "a=²"])
def test_no_shape(text: str) -> None:
    with pytest.raises(RecipeError, match="is not a shape") as caught:
        parse_shapes([text])
    assert caught.value.expected == "--shape name=1x3x320x320"


def test_a_shape_twice() -> None:
    with pytest.raises(RecipeError, match="gives 'a' twice"):
        parse_shapes(["a=1", "a=2"])


def saved(folder: Path, **arrays: np.ndarray) -> Path:
    path = folder / "inputs.npz"
    np.savez(path, **arrays)
    return path


def test_samples_are_fed_one_at_a_time(tmp_path: Path) -> None:
    images = np.arange(5 * 192, dtype=np.float32).reshape(5, 3, 8, 8)
    feeds = load_feeds(saved(tmp_path, image=images), [IMAGE])
    assert len(feeds) == 5
    assert np.array_equal(feeds[3]["image"], images[3:4])


def test_a_fixed_batch_takes_as_many_at_a_time(tmp_path: Path) -> None:
    feeds = load_feeds(saved(tmp_path, pair=np.zeros((6, 4), np.float32)), [FIXED])
    assert [f["pair"].shape for f in feeds] == [(2, 4)] * 3


def test_what_fits_as_a_whole_goes_with_every_sample(tmp_path: Path) -> None:
    path = saved(
        tmp_path, image=np.zeros((3, 3, 8, 8), np.float32), rate=np.array(16000, np.int64)
    )
    feeds = load_feeds(path, [IMAGE, SCALAR])
    assert [int(f["rate"]) for f in feeds] == [16000] * 3


def test_inputs_survive_the_disk_also_under_the_name_file(tmp_path: Path) -> None:
    spec = TensorSpec("file", "float32", (1, 2))
    odd = TensorSpec("gpu_0/data", "int32", (1,))
    feeds = {"file": np.ones((1, 2), np.float32), "gpu_0/data": np.array([3], np.int32)}
    save_feeds(tmp_path / "f.npz", feeds)
    back = one(load_feeds(tmp_path / "f.npz", [spec, odd]))
    assert all(np.array_equal(back[name], feeds[name]) for name in feeds)


def test_the_batch_is_the_first_axis() -> None:
    assert batch_size({"rate": np.array(1), "x": np.zeros((4, 2))}) == 4
    assert batch_size({"rate": np.array(1)}) == 1


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({}, "lacks the input image"),
        ({"imag": np.zeros((1, 3, 8, 8), np.float32)}, "Did you mean 'image'"),
        ({"image": np.zeros((1, 3, 8, 8))}, "wrong type"),
        ({"image": np.zeros((1, 3, 8, 9), np.float32)}, "wrong shape"),
        ({"image": np.zeros((3, 8, 8), np.float32)}, "wrong shape"),
        ({"image": np.zeros((0, 3, 8, 8), np.float32)}, "no samples"),
        ({"image": np.full((1, 3, 8, 8), np.nan, np.float32)}, "holds NaN or infinity"),
        ({"image": np.full((1, 3, 8, 8), np.inf, np.float32)}, "holds NaN or infinity"),
    ],
)
def test_wrong_inputs(tmp_path: Path, arrays: dict[str, np.ndarray], text: str) -> None:
    with pytest.raises(DataError) as caught:
        load_feeds(saved(tmp_path, **arrays), [IMAGE])
    assert text in caught.value.message
    assert "inputs.npz" in caught.value.message


def test_half_a_batch(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be cut into batches") as caught:
        load_feeds(saved(tmp_path, pair=np.zeros((5, 4), np.float32)), [FIXED])
    assert (caught.value.expected, caught.value.got) == (
        "a multiple of 2 samples, the batch that the model takes",
        "5 samples",
    )


def test_inputs_of_different_length(tmp_path: Path) -> None:
    path = saved(
        tmp_path, image=np.zeros((3, 3, 8, 8), np.float32), tokens=np.zeros((2, 4), np.int64)
    )
    with pytest.raises(DataError, match="different numbers of samples") as caught:
        load_feeds(path, [IMAGE, TOKENS])
    assert caught.value.got == "image: 3, tokens: 2"


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    path = saved(tmp_path, image=np.array([{"a": 1}], object))
    with pytest.raises(DataError, match="cannot be read") as caught:
        load_feeds(path, [IMAGE])
    assert caught.value.expected == "an .npz of plain arrays, without pickled objects"


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"hello", b"\x93NUMPY\x01\x00"])
def test_a_file_that_is_no_npz(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "inputs.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match="cannot be read"):
        load_feeds(path, [IMAGE])


def test_a_single_array(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros(3))
    with pytest.raises(DataError, match="holds a single array"):
        load_feeds(tmp_path / "x.npy", [IMAGE])


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="There is no file"):
        load_feeds(tmp_path / "x.npz", [IMAGE])
