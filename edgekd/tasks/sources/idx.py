"""The four IDX files in which MNIST, Fashion-MNIST and their kin are published.

The format (http://yann.lecun.com/exdb/mnist): two zero bytes, a type code (8 for unsigned
bytes), the number of axes, then each axis' length as a big-endian 32-bit number, then the values.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, cast

import numpy as np
from pydantic import Field

from edgekd.core.config import Config
from edgekd.core.errors import DataError
from edgekd.core.hashing import sha256_bytes, sha256_file
from edgekd.tasks._contract import SOURCES, Data
from edgekd.tasks.sources._assemble import Pool, assemble, make_pool
from edgekd.tasks.sources._checks import check_memory
from edgekd.tasks.sources._scaling import Scaling
from edgekd.tasks.sources._splits import Seed, Share

if TYPE_CHECKING:
    from numpy.typing import NDArray

_UNSIGNED_BYTE = 8


@SOURCES.register
class Idx(Config):
    """Grey images and labels in IDX files, packed with gzip or not.

    Attributes:
        folder: Where the four files are; a relative path starts at the recipe's folder.
        train_images: File name; a ".gz" more or less does not matter.
        train_labels: File name.
        test_images: File name.
        test_labels: File name.
        classes: Names of the classes; counted and numbered when left out.
        validation: Share of train that becomes the validation split: a number of samples, or a
            fraction.
        seed: Of that split, which is stratified.
        scaling: How pixels are scaled.
        max_mib: The most one file may take in memory, MiB.
    """

    folder: str
    train_images: str = "train-images-idx3-ubyte.gz"
    train_labels: str = "train-labels-idx1-ubyte.gz"
    test_images: str = "t10k-images-idx3-ubyte.gz"
    test_labels: str = "t10k-labels-idx1-ubyte.gz"
    classes: tuple[str, ...] | None = None
    validation: Share = 5000
    seed: Seed = 0
    scaling: Scaling = Scaling()
    max_mib: Annotated[int, Field(ge=1)] = 4096

    def load(self, folder: Path) -> Data:
        """Read the four files.

        Raises:
            DataError: One is missing, cut off or no IDX file, or they do not fit together.
        """
        base = folder / self.folder
        names = (self.train_images, self.train_labels, self.test_images, self.test_labels)
        paths = [_existing(base, name) for name in names]
        train, test = self._pool(*paths[:2]), self._pool(*paths[2:])
        return assemble(
            {"train": train, "test": test},
            validation=self.validation,
            seed=self.seed,
            classes=self.classes,
            scaling=self.scaling,
            content=sha256_bytes(" ".join(sha256_file(path) for path in paths).encode()),
            title=f"IDX files in {base.resolve().name}",
        )

    def _pool(self, images: Path, labels: Path) -> Pool:
        pixels = read_idx(images, axes=3, max_mib=self.max_mib)
        classes = read_idx(labels, axes=1, max_mib=self.max_mib)
        return make_pool(pixels[:, None], classes, images.name, y_origin=labels.name)


def read_idx(path: Path, *, axes: int, max_mib: int) -> NDArray[np.uint8]:
    """The array of unsigned bytes in an IDX file, packed or not.

    Args:
        path: The file; packed if its first two bytes say so, whatever its name.
        axes: How many axes it has to have: 3 for images (N, H, W), 1 for labels (N,).
        max_mib: More than that is not read.

    Raises:
        DataError: It is no IDX file, of another type or number of axes, or of another length than
            its header says.
    """
    try:
        with _opened(path) as file:
            shape = _header(file, path, axes)
            size = int(np.prod(shape, dtype=object))
            check_memory(size, max_mib, str(path))
            data = file.read(size + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as e:
        raise DataError(
            f"{path} is cut off or damaged: it does not unpack.",
            expected="a complete gzip file",
            got=str(e),
            todo="copy or download it again",
        ) from e
    if len(data) != size:
        raise DataError(
            f"{path} is not as long as its header says.",
            expected=f"{size} bytes of values for shape {shape}",
            got=f"{len(data)} bytes" if len(data) < size else "more bytes",
            todo="copy or download it again",
        )
    return np.frombuffer(data, dtype=np.uint8).reshape(shape)


def _existing(folder: Path, name: str) -> Path:
    other = name.removesuffix(".gz") if name.endswith(".gz") else name + ".gz"
    for path in (folder / name, folder / other):
        if path.is_file():
            return path
    there = sorted(p.name for p in folder.iterdir())[:6] if folder.is_dir() else None
    raise DataError(
        f"There is no file {name!r} in {folder}.",
        expected=f"{name} or {other}",
        got="no such folder" if there is None else f"{', '.join(there) or 'an empty folder'}",
        todo="check `folder` and the four file names; a relative one starts at the recipe's",
    )


def _opened(path: Path) -> BinaryIO:
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return cast("BinaryIO", gzip.open(path, "rb")) if packed else path.open("rb")


def _header(file: BinaryIO, path: Path, axes: int) -> tuple[int, ...]:
    magic = file.read(4)
    expected = bytes((0, 0, _UNSIGNED_BYTE, axes))
    if magic != expected:
        raise DataError(
            f"{path} does not start like an IDX file of unsigned bytes with {axes} axes.",
            expected=f"the bytes {expected.hex(' ')}",
            got=magic.hex(" ") or "an empty file",
            todo="check that images and labels are not swapped",
        )
    lengths = file.read(4 * axes)
    if len(lengths) < 4 * axes:
        raise DataError(f"{path} is cut off inside its header.", todo="copy it again")
    return struct.unpack(f">{axes}I", lengths)
