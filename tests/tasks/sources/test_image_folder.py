from __future__ import annotations

import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgekd.core.errors import DataError
from edgekd.tasks._contract import Data
from edgekd.tasks.sources.image_folder import ImageFolder
from edgekd.testing.sources import pictures, write_images

X, Y = pictures((6, 5, 3))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_images(tmp_path / "images", X, Y)
    return tmp_path / "images"


def load(folder: Path, **settings: Any) -> Data:
    return ImageFolder(folder=str(folder), **settings).load(Path("unused"))


def message(folder: Path, **settings: Any) -> str:
    with pytest.raises(DataError) as error:
        load(folder, **settings)
    return str(error.value)


def test_classes_are_folders_in_alphabetical_order(folder: Path) -> None:
    data = load(folder, scaling={"standardise": False})
    assert data.classes == ("cat", "dog", "owl")
    assert data.input_shape == (3, 6, 5)
    assert data.description == (
        "images in images: 36 train + 12 validation + 12 test samples of 3x6x5, 3 classes"
    )
    by_pixels = {x.transpose(2, 0, 1).tobytes(): y for x, y in zip(X, Y, strict=True)}
    batch = np.rint(data.test.batch(np.arange(12)) * 255).astype(np.uint8)
    assert [by_pixels[image.tobytes()] for image in batch] == data.test.labels.tolist()


def test_train_comes_out_with_mean_0_and_deviation_1(folder: Path) -> None:
    train = load(folder).train
    batch = train.batch(np.arange(len(train)))
    np.testing.assert_allclose(batch.mean((0, 2, 3)), 0, atol=1e-5)  # figures have six digits
    np.testing.assert_allclose(batch.std((0, 2, 3)), 1, atol=1e-5)


def test_split_folders_are_kept(tmp_path: Path) -> None:
    write_images(tmp_path / "train", X[:40], Y[:40])
    write_images(tmp_path / "test", X[40:50], Y[40:50])
    data = load(tmp_path, validation=10)
    assert [len(s) for s in (data.train, data.validation, data.test)] == [30, 10, 10]
    write_images(tmp_path / "validation", X[50:], Y[50:])
    data = load(tmp_path)
    assert [len(s) for s in (data.train, data.validation, data.test)] == [40, 10, 10]


def test_resizing_and_grey(folder: Path) -> None:
    data = load(folder, size=[4, 8], colour="grey")
    assert data.input_shape == (1, 4, 8)
    assert data.train.batch(np.array([0])).shape == (1, 1, 4, 8)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_every_8_bit_mode_becomes_rgb(mode: str, folder: Path) -> None:
    suffix = ".jpg" if mode == "CMYK" else ".png"
    path = folder / "cat" / f"000{suffix}"
    (folder / "cat" / "000.png").unlink()
    image = Image.fromarray(X[0]).convert("L" if mode == "LA" else mode)
    image.convert(mode).save(path)
    data = load(folder)
    assert data.train.batch(np.arange(len(data.train))).shape[1:] == (3, 6, 5)


def test_images_are_decoded_once_if_they_fit_in_memory(folder: Path) -> None:
    kept, read = load(folder), load(folder, keep_mib=0)
    rows = np.arange(len(kept.test))
    first = kept.test.batch(rows)
    assert np.array_equal(first, read.test.batch(rows))
    shutil.rmtree(folder)
    assert np.array_equal(first, kept.test.batch(rows))
    with pytest.raises(DataError, match=r"The image .*png cannot be read"):
        read.test.batch(rows)


def test_other_files_are_counted(folder: Path) -> None:
    (folder / "cat" / "notes.txt").write_text("hello")
    (folder / "README.md").write_text("hello")
    (folder / ".hidden").mkdir()
    assert load(folder).description.startswith("images in images (2 other files ignored): 36")


def test_a_file_cut_off_is_named_when_it_is_decoded(folder: Path) -> None:
    path = folder / "cat" / "000.jpg"
    Image.effect_noise((64, 64), 90).save(path)
    path.write_bytes(path.read_bytes()[:1500])
    (folder / "cat" / "000.png").unlink()
    data = load(folder, size=[6, 5], scaling={"mean": [0.5] * 3, "std": [0.5] * 3})
    parts = (data.train, data.validation, data.test)
    with pytest.raises(DataError) as error:
        [split.batch(np.arange(len(split))) for split in parts]
    text = str(error.value)
    assert f"The image {path} is damaged or no image." in text
    assert "truncated" in text
    assert "to do:    repair or remove the file" in text


def test_a_file_that_changes_while_it_is_used(folder: Path) -> None:
    data = load(folder, scaling={"standardise": False})
    for path in folder.rglob("*.png"):
        Image.new("RGB", (7, 7)).save(path)
    with pytest.raises(
        DataError, match=r"changed while it was used.\n  expected: shape \(3, 6, 5"
    ):
        data.train.batch(np.array([0]))


def _png(width: int, height: int) -> bytes:
    """A PNG that says it is huge, with no pixels behind it."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b""))


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "is damaged or no image.\n  expected: a complete PNG, JPEG, BMP, WEBP, PPM file\n"
              "  got:      an empty file\n  to do:    repair or remove the file"),
        (b"hello", "got:      a file that is none of PNG, JPEG, BMP, WEBP, PPM"),
        # a format whose decoder would start another program
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 6\n", "got:      a file that is none of"),
        (_png(5, 6)[:20], "is damaged or no image."),
        (_png(8000, 8000), "is too large to be decoded safely.\n"
         "  expected: at most 50000000 pixels\n  got:      8000 x 8000 pixels\n"
         "  to do:    resize it, or raise `max_pixels`"),
        (_png(60_000, 60_000), "is too large to be decoded safely."),
    ],
)  # fmt: skip
def test_files_that_are_no_images(content: bytes, text: str, folder: Path) -> None:
    path = folder / "dog" / "004.png"
    path.write_bytes(content)
    found = message(folder)
    assert text in found
    assert f"The image {path}" in found


def test_16_bit_images_are_not_cut_down_unseen(folder: Path) -> None:
    Image.fromarray(np.zeros((6, 5), np.uint16)).save(folder / "cat" / "000.png")
    found = message(folder)
    assert "does not hold 8-bit pixels.\n  expected: 8 bits per channel\n" in found
    assert "I;16" in found


def test_images_of_several_sizes_need_a_size(folder: Path) -> None:
    Image.new("RGB", (7, 9)).save(folder / "owl" / "002.png")
    found = message(folder)
    assert "The images differ in size: " in found
    assert "expected: 6 x 5 pixels (height x width) for all\n  got:      9 x 7" in found
    assert "e.g. size: [6, 5]" in found


def test_links_that_leave_the_folder_are_refused(folder: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    Image.new("RGB", (5, 6)).save(secret)
    link = folder / "cat" / "link.png"
    link.symlink_to(secret)
    assert (
        f"{link} is a link that leads out of the data folder.\n"
        f"  expected: files inside {folder}\n  got:      {secret}\n" in message(folder)
    )
    link.unlink()
    link.symlink_to(folder / "cat" / "000.png")  # inside: fine
    assert len(load(folder).train) > 0
    (folder / "cow").symlink_to(tmp_path)
    assert f"{folder / 'cow'} is a link that leads out" in message(folder)


def test_a_missing_folder(tmp_path: Path) -> None:
    assert "There is no folder " in message(tmp_path / "none")


def test_a_folder_without_class_folders(tmp_path: Path) -> None:
    Image.new("RGB", (5, 6)).save(tmp_path / "a.png")
    assert "holds no class folders.\n  expected: one folder of images per class" in message(
        tmp_path
    )


def test_a_class_folder_without_images(folder: Path) -> None:
    (folder / "yak").mkdir()
    assert f"The class folder {folder / 'yak'} holds no images." in message(folder)
    assert "got:      an empty folder" in message(folder)


def test_a_split_folder_of_another_name(tmp_path: Path) -> None:
    for name in ("train", "test", "val"):
        write_images(tmp_path / name, X[:9], Y[:9])
    found = message(tmp_path)
    assert f"{tmp_path / 'val'} stands beside train and test but is no split." in found
    assert "expected: folders called train, validation, test" in found


def test_a_class_that_is_only_in_test(tmp_path: Path) -> None:
    write_images(tmp_path / "train", X[:30], Y[:30] % 2)
    write_images(tmp_path / "test", X[30:], Y[30:])
    assert "got:      none of 'owl'" in message(tmp_path)


def test_test_images_that_are_also_in_train(tmp_path: Path) -> None:
    write_images(tmp_path / "train", X, Y)
    write_images(tmp_path / "test", X[:9], Y[:9])
    assert "The test split repeats the train split." in message(tmp_path, validation=9)
