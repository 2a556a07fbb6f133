from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekd.core.errors import DataError
from edgekd.tasks._contract import Data
from edgekd.tasks.sources.arrays import Arrays
from edgekd.testing.sources import pictures

X, Y = pictures((6, 5, 3))


def load(folder: Path, settings: dict[str, Any] | None = None, **arrays: Any) -> Data:
    np.savez(folder / "data.npz", **arrays)
    return Arrays(path="data.npz", **({"layout": "NHWC"} if settings is None else settings)).load(
        folder
    )


def message(folder: Path, settings: dict[str, Any] | None = None, **arrays: Any) -> str:
    with pytest.raises(DataError) as error:
        load(folder, settings, **arrays)
    return str(error.value)


def test_channels_last_and_first_are_the_same_data(tmp_path: Path) -> None:
    last = load(tmp_path, x=X, y=Y)
    first = load(tmp_path, {"layout": "NCHW"}, x=X.transpose(0, 3, 1, 2), y=Y)
    assert last.input_shape == first.input_shape == (3, 6, 5)
    rows = np.arange(len(last.test))
    assert np.array_equal(last.test.batch(rows), first.test.batch(rows))


def test_grey_images_get_a_channel(tmp_path: Path) -> None:
    assert load(tmp_path, {}, x=X[..., 0], y=Y).input_shape == (1, 6, 5)


def test_feature_vectors_are_scaled_per_feature(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal([0, 100], [1, 5], (60, 2))
    data = load(tmp_path, {}, x=x, y=Y)
    train = data.train.batch(np.arange(len(data.train)))
    np.testing.assert_allclose(train.std(0), 1, atol=1e-5)
    assert data.input_shape == (2,)
    assert (
        data.description == "data.npz: 36 train + 12 validation + 12 test samples of 2, 3 classes"
    )


def test_given_splits_are_kept_and_validation_is_cut_from_train(tmp_path: Path) -> None:
    parts = {"x_train": X[:40], "y_train": Y[:40], "x_test": X[40:50], "y_test": Y[40:50]}
    data = load(tmp_path, {"layout": "NHWC", "validation": 10}, **parts)
    assert [len(s) for s in (data.train, data.validation, data.test)] == [30, 10, 10]
    data = load(tmp_path, x_validation=X[50:], y_validation=Y[50:], **parts)
    assert [len(s) for s in (data.train, data.validation, data.test)] == [40, 10, 10]
    assert data.test.labels.tolist() == Y[40:50].tolist()


def test_names_in_the_archive_can_be_others(tmp_path: Path) -> None:
    data = load(tmp_path, {"layout": "NHWC", "keys": {"x": "images", "y": "digit"}},
                images=X, digit=Y, other=np.array(["ignored"]))  # fmt: skip
    assert data.classes == ("0", "1", "2")


def test_samples_that_repeat_are_counted_in_the_description(tmp_path: Path) -> None:
    data = load(tmp_path, x_train=X[:45], y_train=Y[:45], x_test=X[40:], y_test=Y[40:],
                x_validation=X[50:], y_validation=Y[50:])  # fmt: skip
    assert data.description.endswith("3 classes; 5 of test also stand in train")


@pytest.mark.shared
def test_real_pictures(shared_data: Path) -> None:
    keys = {f"{a}_{s}": f"{s}_{b}" for a, b in (("x", "images"), ("y", "labels"))
            for s in ("train", "test")}  # fmt: skip
    path = str(shared_data / "cifar10" / "cifar10_lossless_3000train_932test.npz")
    data = Arrays(path=path, layout="NHWC", keys=keys).load(Path("unused"))
    assert data.input_shape == (3, 32, 32)
    assert [len(s) for s in (data.train, data.validation, data.test)] == [2400, 600, 932]


NAN = X[..., 0].astype(np.float32)
NAN[17, 2, 3] = np.nan
HUGE = X[..., 0].astype(np.float64)
HUGE[[21, 30], 0, 0] = 1e300


@pytest.mark.parametrize(
    ("arrays", "settings", "text"),
    [
        ({"x": X, "y": Y}, {},
         "x in data.npz has four axes, and the recipe does not say which holds the channels.\n"
         "  expected: layout: NHWC or layout: NCHW\n  got:      shape (60, 6, 5, 3)"),
        ({"x": NAN, "y": Y}, {},
         "x in data.npz holds a value that is not a finite number.\n"
         "  expected: finite numbers that fit into float32\n  got:      NaN in sample 17\n"
         "  to do:    repair or remove that sample"),
        ({"x": HUGE, "y": Y}, {}, "got:      infinity in sample 21"),
        ({"x": X[..., 0], "y": Y[:50]}, {},
         "x in data.npz has another number of samples than of labels.\n"
         "  expected: 60 labels\n  got:      50"),
        ({"x": X[..., 0], "y": Y.astype(float)}, {},
         "The labels in y in data.npz are not whole numbers.\n"
         "  expected: an integer type; class indices that start at 0\n  got:      type float64\n"
         "  to do:    store them with y.astype('int64')"),
        ({"x": X[..., 0], "y": np.eye(3)[Y]}, {}, "from one-hot rows: y.argmax(axis=1)"),
        ({"x": X[..., 0], "y": Y - 1}, {}, "A label in y in data.npz is out of range."),
        ({"x": X[..., 0], "y": Y}, {"classes": ["cat", "dog"]},
         "expected: 0 to 1 for 2 classes\n  got:      2 at sample 2, and 19 more"),
        ({"x": X[..., 0], "y": Y}, {"classes": ["cat", "dog", "owl", "yak"]},
         "A class has no sample in the train split, so it cannot be learned.\n"
         "  expected: samples of all 4 classes\n  got:      none of 'yak'"),
        ({"x": X[..., 0], "y": Y}, {"classes": ["cat", "dog", "dog"]},
         "A class name is given twice.\n  got:      dog"),
        ({"x": X[..., 0], "y": Y * 0}, {}, "The data has fewer than two classes"),
        ({"x": X[:0, ..., 0], "y": Y[:0]}, {}, "x in data.npz is empty."),
        ({"x": X[0, 0, 0], "y": Y[:3]}, {}, "x in data.npz is neither images nor feature"),
        ({"x": X[:, :0, 0], "y": Y}, {}, "The samples of x in data.npz hold nothing"),
        ({"x": np.full((60, 2), "a"), "y": Y}, {}, "x in data.npz does not hold numbers."),
        ({"x": X}, {}, "holds x without y.\n  expected: samples and labels in pairs"),
        ({"a": X}, {}, "does not hold the arrays of a data set.\n"
         "  expected: either x and y, or x_train, y_train, x_test and y_test\n"
         "  got:      none of them"),
        ({"x_train": X, "y_train": Y}, {}, "got:      x_train, y_train"),
        ({"x": X, "y": Y, "x_train": X, "y_train": Y, "x_test": X, "y_test": Y}, {},
         "does not hold the arrays of a data set"),
        ({"x": X, "y": Y}, {"keys": {"x": "y_"}},
         "holds no array 'y_' for x. Did you mean 'y'? Known: x, y"),
        ({"x_train": X[..., 0], "y_train": Y, "x_test": X[:9, :4, :, 0], "y_test": Y[:9]}, {},
         "The samples of x_test in data.npz have another shape than those of x_train in data.npz."
         "\n  expected: (1, 6, 5)\n  got:      (1, 4, 5)"),
        ({"x_train": X[..., 0], "y_train": Y, "x_test": X[:9, ..., 0] / 255, "y_test": Y[:9]}, {},
         "The parts of the data are stored in different types"),
        ({"x_train": X[..., 0], "y_train": Y, "x_test": X[:9, ..., 0], "y_test": Y[:9],
          "x_validation": X[:5, ..., 0], "y_validation": Y[:5]}, {},
         "The validation split repeats the train split.\n"
         "  expected: samples that training does not see\n"
         "  got:      all 5 samples of validation are also in train"),
        ({"x": np.zeros((60, 1 << 15)), "y": Y}, {"max_mib": 3},
         "is larger than this source may read into memory.\n  expected: at most 3 MiB\n"
         "  got:      15 MiB"),
        ({"x": np.array([{}] * 60), "y": Y}, {},
         "holds Python objects, which only a pickle can read, and a pickle can run code."),
    ],
)  # fmt: skip
def test_unusable_arrays(
    arrays: dict[str, Any], settings: dict[str, Any], text: str, tmp_path: Path
) -> None:
    assert text in message(tmp_path, settings, **arrays)


def test_a_missing_archive(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"There is no file '.*none.npz'.\n  expected: a NumPy"):
        Arrays(path="none.npz").load(tmp_path)


@pytest.mark.parametrize("cut", [0, 10, 200])
def test_a_cut_off_archive(cut: int, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=X, y=Y)
    path = tmp_path / "data.npz"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match="is not a NumPy archive, or it is cut off"):
        Arrays(path="data.npz").load(tmp_path)


def test_a_single_array_is_no_archive(tmp_path: Path) -> None:
    np.save(tmp_path / "data.npy", X)
    with pytest.raises(DataError, match="is not a NumPy archive"):
        Arrays(path="data.npy").load(tmp_path)


def test_a_damaged_archive(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, x=X, y=Y)
    data = bytearray(path.read_bytes())
    data[500] ^= 1  # inside x: its checksum no longer fits
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"data.npz is damaged.\n  expected: arrays of numbers"):
        Arrays(path="data.npz", layout="NHWC").load(tmp_path)


def test_a_zip_of_something_else(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "data.npz", "w") as archive:
        archive.writestr("x.npy", "hello")
        archive.writestr("y.npy", "hello")
    with pytest.raises(DataError, match=r"data.npz is damaged: x in it is no array"):
        Arrays(path="data.npz").load(tmp_path)


def test_pickles_are_never_opened(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (tmp_path.joinpath("ran").touch, ())

    text = message(tmp_path, {}, x=np.array([Trap()] * 60), y=Y)
    assert "save plain arrays, without dtype=object" in text
    assert not (tmp_path / "ran").exists()


def test_a_std_that_drives_values_out_of_float32(tmp_path: Path) -> None:
    scaling = {"mean": [0.0], "std": [1e-30]}
    data = load(tmp_path, {"scaling": scaling}, x=X[..., 0] * 1e10, y=Y)
    with pytest.raises(DataError, match="Sample 3 of test is not finite after scaling"):
        data.test.batch(np.array([3]))
