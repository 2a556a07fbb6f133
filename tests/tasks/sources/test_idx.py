from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from edgekd.core.errors import DataError
from edgekd.tasks.sources.idx import Idx, read_idx
from edgekd.testing.sources import pictures, write_idx

X, Y = pictures()
NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, values in zip(NAMES, (X[:45], Y[:45], X[45:], Y[45:]), strict=True):
        write_idx(tmp_path / f"{name}.gz", values)
    return tmp_path


def load(folder: Path) -> str:
    with pytest.raises(DataError) as error:
        Idx(folder=".", validation=9).load(folder)
    return str(error.value)


def test_files_are_read_as_they_were_written(folder: Path) -> None:
    data = Idx(folder=".", validation=9, scaling={"standardise": False}).load(folder)
    assert data.input_shape == (1, 6, 5)
    assert data.classes == ("0", "1", "2")
    assert [len(s) for s in (data.train, data.validation, data.test)] == [36, 9, 15]
    assert np.bincount(data.validation.labels).tolist() == [3, 3, 3]
    expected = X[45:, None].astype(np.float32) / np.float32(255)
    assert np.array_equal(data.test.batch(np.arange(15)), expected)


def test_packed_or_not_and_names_of_ones_own(folder: Path) -> None:
    packed = Idx(folder=".", validation=9).load(folder)
    write_idx(folder / "mine", X[:45])
    for name in NAMES[1:]:
        (folder / name).write_bytes(gzip.decompress((folder / f"{name}.gz").read_bytes()))
        (folder / f"{name}.gz").unlink()
    plain = Idx(folder=str(folder), validation=9, train_images="mine.gz").load(Path("unused"))
    rows = np.arange(36)
    assert np.array_equal(packed.train.batch(rows), plain.train.batch(rows))


@pytest.mark.shared
def test_fashion_mnist(shared_data: Path) -> None:
    data = Idx(folder="fashion-mnist").load(shared_data)
    assert [len(s) for s in (data.train, data.validation, data.test)] == [55_000, 5_000, 10_000]
    labels = np.concatenate([data.train.labels, data.validation.labels])
    assert np.bincount(labels).tolist() == [6_000] * 10
    assert np.bincount(data.validation.labels).tolist() == [500] * 10
    # the mean and deviation of all 60,000, as published with many reference implementations
    assert data.train.scale.mean == pytest.approx((0.2860,), abs=5e-4)
    assert data.train.scale.std == pytest.approx((0.3530,), abs=5e-4)
    assert data.train.batch(np.arange(2)).shape == (2, 1, 28, 28)


def test_a_missing_folder_or_file(folder: Path) -> None:
    with pytest.raises(DataError) as error:
        Idx(folder="nowhere").load(folder)
    assert "There is no file 'train-images-idx3-ubyte.gz' in " in str(error.value)
    assert "got:      no such folder" in str(error.value)
    (folder / f"{NAMES[3]}.gz").unlink()
    assert (
        f"expected: {NAMES[3]}.gz or {NAMES[3]}\n"
        f"  got:      {NAMES[2]}.gz, {NAMES[0]}.gz, {NAMES[1]}.gz" in load(folder)
    )


@pytest.mark.parametrize("cut", [1, 40, 600])
def test_a_cut_off_packed_file(cut: int, folder: Path) -> None:
    path = folder / f"{NAMES[0]}.gz"
    path.write_bytes(path.read_bytes()[: cut + 1])
    text = load(folder)
    assert "is cut off or damaged: it does not unpack." in text or "does not start like" in text
    assert str(path) in text


def test_a_flipped_bit_in_a_packed_file(folder: Path) -> None:
    path = folder / f"{NAMES[0]}.gz"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert "is cut off or damaged: it does not unpack." in load(folder)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "expected: the bytes 00 00 08 03\n  got:      an empty file"),
        (b"\0\0\x08\x01" + b"\0" * 9, "got:      00 00 08 01\n  to do:    check that images and"),
        (b"\0\0\x0d\x03" + b"\0" * 9, "got:      00 00 0d 03"),
        (b"\x89PNG....", "got:      89 50 4e 47"),
        (b"\0\0\x08\x03\0\0", "is cut off inside its header."),
        (b"\0\0\x08\x03" + struct.pack(">3I", 2, 2, 2) + b"1234567",
         "is not as long as its header says.\n"
         "  expected: 8 bytes of values for shape (2, 2, 2)\n  got:      7 bytes"),
        (b"\0\0\x08\x03" + struct.pack(">3I", 2, 2, 2) + b"123456789", "got:      more bytes"),
        (b"\0\0\x08\x03" + struct.pack(">3I", *[2**32 - 1] * 3),
         "is larger than this source may read into memory.\n  expected: at most 4096 MiB"),
    ],
)  # fmt: skip
def test_something_else_than_an_idx_file(content: bytes, text: str, folder: Path) -> None:
    (folder / f"{NAMES[0]}.gz").write_bytes(content)
    assert text in load(folder)


def test_labels_and_images_that_do_not_belong_together(folder: Path) -> None:
    write_idx(folder / f"{NAMES[1]}.gz", Y[:44])
    assert (
        f"{NAMES[0]}.gz has another number of samples than of labels.\n"
        "  expected: 45 labels\n  got:      44" in load(folder)
    )


def test_test_images_of_another_size(folder: Path) -> None:
    write_idx(folder / f"{NAMES[2]}.gz", X[45:, :4])
    assert "expected: (1, 6, 5)\n  got:      (1, 4, 5)" in load(folder)


def test_a_small_file_cannot_unpack_into_a_large_one(tmp_path: Path) -> None:
    path = tmp_path / "bomb"
    header = b"\0\0\x08\x01" + struct.pack(">I", 3)
    path.write_bytes(gzip.compress(header + bytes(1 << 24)))
    with pytest.raises(DataError, match="got:      more bytes"):
        read_idx(path, axes=1, max_mib=1)
