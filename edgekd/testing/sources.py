"""What every data source must do, as checks that a plugin author runs too.

::

    @pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
    def test_my_source(check, tmp_path):
        write_some_small_real_files(tmp_path)
        check(Case(MySource(path="files"), tmp_path, change=lambda: change_one_byte(tmp_path)))

The data of a case must hold no sample twice.
"""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekd.core.config import Config, dump_yaml, parse_yaml
from edgekd.tasks._contract import SOURCES

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from edgekd.tasks._contract import Data, Source, Split


@dataclass(frozen=True, slots=True)
class Case:
    """A source with data behind it.

    Attributes:
        source: Built from settings.
        folder: Where its relative paths start.
        change: Changes one sample on disk; None where the data cannot change.
    """

    source: Source
    folder: Path
    change: Callable[[], None] | None

    def load(self) -> Data:
        """Read the data."""
        return self.source.load(self.folder)


Check = Callable[[Case], None]


def gives_finite_inputs_of_one_shape(case: Case) -> None:
    """Batches are finite float32, one row for each index, and a fresh array each time."""
    data = case.load()
    for split in (data.train, data.validation, data.test):
        batch = split.batch(np.arange(len(split)))
        assert batch.shape == (len(split), *data.input_shape), f"shape {batch.shape}"
        assert batch.dtype == np.float32, f"{batch.dtype} instead of float32"
        assert np.isfinite(batch).all(), "inputs that are not finite"
        batch[:] = 0
        assert split.batch(np.arange(len(split))).any(), "a batch is a window into the data"


def gives_the_samples_asked_for(case: Case) -> None:
    """A batch follows its indices: any order, one at a time or together, once or twice."""
    split = case.load().train
    wanted = np.array([2, 0, 1, 2])
    alone = np.concatenate([split.batch(np.array([i])) for i in wanted])
    assert np.array_equal(split.batch(wanted), alone), "batches do not follow their indices"


def labels_name_classes(case: Case) -> None:
    """One class index per sample, every class in train, and at least two different names."""
    data = case.load()
    assert len(set(data.classes)) == len(data.classes) >= 2, f"classes {data.classes}"
    for split in (data.train, data.validation, data.test):
        labels = split.labels
        assert labels.dtype == np.int64, f"{labels.dtype} instead of int64"
        assert labels.shape == (len(split),), f"shape {labels.shape} for {len(split)} samples"
        assert labels.min() >= 0, "a negative label"
        assert labels.max() < len(data.classes), "a label beyond the classes"
    assert set(data.train.labels) == set(range(len(data.classes))), "a class is not in train"


def splits_are_disjoint(case: Case) -> None:
    """No split is empty, and none holds a sample of another."""
    data = case.load()
    seen = [_samples(split) for split in (data.train, data.validation, data.test)]
    assert all(seen), "an empty split"
    assert sum(map(len, seen)) == len(set().union(*seen)), "two splits share a sample"


def loads_the_same_twice(case: Case) -> None:
    """Equal settings and files give equal splits and fingerprints."""
    first, again = case.load(), case.load()
    assert first.fingerprint == again.fingerprint, "one data set, two fingerprints"
    for name in ("train", "validation", "test"):
        a, b = getattr(first, name), getattr(again, name)
        rows = np.arange(len(a))
        assert np.array_equal(a.labels, b.labels), f"{name}: other labels"
        assert np.array_equal(a.batch(rows), b.batch(rows)), f"{name}: other samples"


def fingerprint_follows_the_content(case: Case) -> None:
    """It is a sha256, and one changed sample changes it."""
    before = case.load().fingerprint
    assert len(before) == 64, f"{before!r} is no sha256 in hexadecimal"
    assert set(before) <= set("0123456789abcdef"), f"{before!r} is no sha256 in hexadecimal"
    if case.change is not None:
        case.change()
        assert case.load().fingerprint != before, "a changed sample leaves the fingerprint"


def settings_survive_a_recipe(case: Case) -> None:
    """Written into YAML and read back they build an equal source."""
    assert isinstance(case.source, Config), "a source is a Config"
    text = dump_yaml({"data": SOURCES.spec_of(case.source)})
    again = SOURCES.build(parse_yaml(text, source="the dumped recipe")["data"])
    assert again == case.source, "settings change on their way through a recipe"


CHECKS: tuple[Check, ...] = (
    gives_finite_inputs_of_one_shape,
    gives_the_samples_asked_for,
    labels_name_classes,
    splits_are_disjoint,
    loads_the_same_twice,
    fingerprint_follows_the_content,
    settings_survive_a_recipe,
)


def _samples(split: Split) -> set[bytes]:
    return {row.tobytes() for row in split.batch(np.arange(len(split)))}


# ---------------------------------------------------- small data sets for edgekd's own sources
CLASSES = ("cat", "dog", "owl")
_SAMPLES = 60


def pictures(shape: tuple[int, ...] = (6, 5)) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """60 random byte images (N, *shape) and their labels: 20 of each of three classes."""
    rng = np.random.default_rng(7)
    return (
        rng.integers(0, 256, (_SAMPLES, *shape), dtype=np.uint8),
        np.arange(_SAMPLES, dtype=np.int64) % len(CLASSES),
    )


def write_idx(path: Path, values: NDArray[np.integer[Any]]) -> None:
    """An IDX file of bytes, packed if its name ends in .gz."""
    header = bytes((0, 0, 8, values.ndim)) + struct.pack(f">{values.ndim}I", *values.shape)
    data = header + values.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def write_images(folder: Path, values: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
    """PNG files in one folder per class."""
    from PIL import Image

    for i, (value, label) in enumerate(zip(values, labels, strict=True)):
        path = folder / CLASSES[label] / f"{i:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(value).save(path)


def example(name: str, folder: Path) -> Case:
    """A case for one of edgekd's own sources, its files written into `folder`.

    Raises:
        KeyError: No example was written for a source of this name.
    """
    settings, change = _EXAMPLES[name](folder)
    return Case(SOURCES.build({"name": name, **settings}), folder, change)


def _digits(folder: Path) -> tuple[dict[str, Any], None]:
    return {}, None


def _arrays(folder: Path) -> tuple[dict[str, Any], Callable[[], None]]:
    x, y = pictures((6, 5, 3))
    path = folder / "data.npz"
    np.savez(path, x=x, y=y)

    def change() -> None:
        x[0, 0, 0, 0] ^= 1
        np.savez(path, x=x, y=y)

    return {"path": path.name, "layout": "NHWC", "classes": CLASSES}, change


def _idx(folder: Path) -> tuple[dict[str, Any], Callable[[], None]]:
    x, y = pictures()
    write_idx(folder / "train-images-idx3-ubyte.gz", x[:45])
    write_idx(folder / "train-labels-idx1-ubyte.gz", y[:45])
    write_idx(folder / "t10k-images-idx3-ubyte", x[45:])
    write_idx(folder / "t10k-labels-idx1-ubyte", y[45:])

    def change() -> None:
        path = folder / "t10k-images-idx3-ubyte"
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)

    return {"folder": ".", "validation": 9}, change


def _image_folder(folder: Path) -> tuple[dict[str, Any], Callable[[], None]]:
    x, y = pictures((6, 5, 3))
    write_images(folder / "images", x, y)

    def change() -> None:
        x[0, 0, 0, 0] ^= 1
        write_images(folder / "images", x[:1], y[:1])

    return {"folder": "images"}, change


_MODULE = """
from pathlib import Path
import numpy as np

def build(flip):
    x = np.load(Path(__file__).parent / "samples.npy")
    return [(-v if flip else v, i % 3) for i, v in enumerate(x)]
"""


def _python(folder: Path) -> tuple[dict[str, Any], Callable[[], None]]:
    x = pictures((1, 6, 5))[0].astype(np.float32)
    np.save(folder / "samples.npy", x)
    (folder / "edgekd_example_dataset.py").write_text(_MODULE)

    def change() -> None:
        x[0, 0, 0, 0] += 1
        np.save(folder / "samples.npy", x)

    return {"factory": "edgekd_example_dataset:build", "kwargs": {"flip": True}}, change


_EXAMPLES: dict[str, Callable[[Path], tuple[dict[str, Any], Callable[[], None] | None]]] = {
    "digits": _digits,
    "arrays": _arrays,
    "idx": _idx,
    "image_folder": _image_folder,
    "python": _python,
}
