"""Samples from a user's files; random ones never look like them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgekd.core.errors import DataError, RecipeError
from edgekd.core.types import TensorSpec
from edgekd.profile.samples import random_samples, real_samples, refuse_shapes

IMAGE = TensorSpec("image", "float32", (None, 3, None, None))
STATE = TensorSpec("state", "float32", (2, 4))


def images(n: int) -> np.ndarray:
    return np.arange(n, dtype=np.float32)[:, None, None, None] + np.zeros((n, 3, 2, 2), "f")


def ids(feeds) -> list[int]:
    return [int(f["image"].flat[0]) for f in feeds]


def test_an_npz_is_cut_into_disjoint_calibration_and_held_out_samples(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, image=images(20), state=np.zeros((40, 4), np.float32))
    found = real_samples(path, [IMAGE, STATE], most=8)
    assert found.real
    assert (len(found.calibration), len(found.held_out)) == (8, 5)
    assert not set(ids(found.calibration)) & set(ids(found.held_out))
    assert found.calibration[0]["state"].shape == (2, 4)
    assert found.note == "8 of 20 samples from data.npz, 5 others held out"
    again = real_samples(path, [IMAGE, STATE], most=8)
    assert ids(again.held_out) == ids(found.held_out)


def test_an_npy_and_a_folder_of_samples_serve_a_model_with_one_input(tmp_path: Path) -> None:
    np.save(tmp_path / "all.npy", images(8))
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(8):
        np.save(folder / f"{i}.npy", images(8)[i : i + 1])
    for path in (tmp_path / "all.npy", folder):
        found = real_samples(path, [IMAGE], most=100)
        assert sorted(ids(found.calibration) + ids(found.held_out)) == list(range(8))
        assert len(found.held_out) == 2


def test_a_folder_with_one_file_per_input(tmp_path: Path) -> None:
    np.save(tmp_path / "image.npy", images(4))
    np.save(tmp_path / "state.npy", np.zeros((8, 4), np.float32))
    found = real_samples(tmp_path, [IMAGE, STATE], most=100)
    assert len(found.calibration) == 3
    (tmp_path / "state.npy").unlink()
    with pytest.raises(DataError, match="lacks the input state"):
        real_samples(tmp_path, [IMAGE, STATE], most=100)


@pytest.mark.parametrize(
    ("write", "text"),
    [
        (lambda p: np.savez(p, image=images(1)), "holds 1 sample."),
        (lambda p: np.savez(p, image=images(0)), "at least two"),
        (lambda p: np.savez(p, picture=images(4)), "unknown input 'picture'"),
        (lambda p: np.savez(p, image=images(4).astype(np.float64)), "wrong type"),
        (lambda p: np.savez(p, image=images(4)[:, :2]), "wrong shape"),
        (lambda p: np.savez(p, image=images(4) * np.nan), "holds NaN or infinity"),
        (lambda p: p.write_bytes(b"PK\x03\x04 and nothing"), "cannot be read"),
        (lambda p: p.write_bytes(b""), "cannot be read"),
    ],
)
def test_bad_data_is_one_clear_message(write, text: str, tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    write(path)
    with pytest.raises(DataError, match=text):
        real_samples(path, [IMAGE], most=8)


@pytest.mark.parametrize("name", ["missing.npz", "missing.npy", "missing"])
def test_data_that_is_not_there(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="There is no file"):
        real_samples(tmp_path / name, [IMAGE], most=8)


def test_an_npy_that_is_no_array_or_for_two_inputs(tmp_path: Path) -> None:
    path = tmp_path / "all.npy"
    np.save(path, images(8))
    with pytest.raises(DataError, match="holds one array, and the model has 2 inputs"):
        real_samples(path, [IMAGE, STATE], most=8)
    path.write_bytes(b"\x80\x04K\x01.")  # a pickle
    with pytest.raises(DataError, match="cannot be read"):
        real_samples(path, [IMAGE], most=8)
    with path.open("wb") as f:
        np.savez(f, image=images(8))  # an archive under the wrong name
    with pytest.raises(DataError, match="cannot be read"):
        real_samples(path, [IMAGE], most=8)
    empty = tmp_path / "folder"
    empty.mkdir()
    with pytest.raises(DataError, match=r"holds no \.npy files"):
        real_samples(empty, [IMAGE], most=8)


def test_random_samples_are_not_real_and_need_every_size() -> None:
    found = random_samples([IMAGE], {"image": (1, 3, 8, 8)}, most=8)
    assert not found.real
    assert (len(found.calibration), len(found.held_out)) == (8, 2)
    assert found.note == "random, seed 0"
    with pytest.raises(RecipeError, match="leaves the shape of its inputs open") as e:
        random_samples([IMAGE], {}, most=8)
    assert e.value.todo == "give --shape image=1x3x320x320 with your own sizes"


def test_shapes_are_for_random_data() -> None:
    with pytest.raises(RecipeError, match="real samples bring their own shapes"):
        refuse_shapes({"image": (1, 3, 8, 8)})
    refuse_shapes({})
