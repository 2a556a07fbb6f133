"""What every data source checks before anybody learns from its data."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from edgekd.core.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

_CHUNK_ROWS = 4096


def as_labels(values: NDArray[np.generic], where: str) -> NDArray[np.int64]:
    """Labels of shape (N,) as int64.

    Raises:
        DataError: Not one whole number per sample.
    """
    if values.ndim != 1:
        raise DataError(
            f"The labels in {where} are not one number per sample.",
            expected="shape (N,)",
            got=f"shape {values.shape}",
            todo="store class indices; from one-hot rows: y.argmax(axis=1)",
        )
    if values.dtype.kind not in "iu":
        raise DataError(
            f"The labels in {where} are not whole numbers.",
            expected="an integer type; class indices that start at 0",
            got=f"type {values.dtype}",
            todo="store them with y.astype('int64')",
        )
    return values.astype(np.int64)


def check_lengths(values: NDArray[np.generic], labels: NDArray[np.int64], where: str) -> None:
    """One label for each sample, and at least one sample.

    Raises:
        DataError: Otherwise.
    """
    if len(values) != len(labels):
        raise DataError(
            f"{where} has another number of samples than of labels.",
            expected=f"{len(values)} labels",
            got=f"{len(labels)}",
        )
    if len(values) == 0:
        raise DataError(f"{where} is empty.", expected="at least one sample", got="0 samples")


def check_range(labels: NDArray[np.int64], classes: int, where: str) -> None:
    """Every label is a class index.

    Raises:
        DataError: One is out of range; the text names the first such sample.
    """
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        raise DataError(
            f"A label in {where} is out of range.",
            expected=f"0 to {classes - 1} for {classes} classes",
            got=f"{labels[wrong[0]]} at sample {wrong[0]}"
            + (f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""),
        )


def check_finite(values: NDArray[np.generic], where: str, *, first: int = 0) -> None:
    """No NaN and no infinity.

    Args:
        values: Samples, shape (N, …).
        where: What they are, for the error.
        first: Index of the first of them, for the error.

    Raises:
        DataError: Otherwise; the text names the first such sample.
    """
    if values.dtype.kind != "f":
        return
    for start in range(0, len(values), _CHUNK_ROWS):
        chunk = values[start : start + _CHUNK_ROWS].reshape(len(values[start:][:_CHUNK_ROWS]), -1)
        finite = np.isfinite(chunk)
        if not finite.all():
            row = int(np.flatnonzero(~finite.all(axis=1))[0])
            value = chunk[row][~finite[row]][0]
            raise DataError(
                f"{where} holds a value that is not a finite number.",
                expected="finite numbers that fit into float32",
                got=f"{'NaN' if np.isnan(value) else 'infinity'} in sample {first + start + row}",
                todo="repair or remove that sample",
            )


def check_shapes(shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    """The one shape that the samples of all parts share; `shapes` is by part.

    Raises:
        DataError: They differ, or a sample is empty or a bare number.
    """
    (first, shape), *others = shapes.items()
    for name, other in others:
        if other != shape:
            raise DataError(
                f"The samples of {name} have another shape than those of {first}.",
                expected=str(shape),
                got=str(other),
            )
    if not shape or 0 in shape:
        raise DataError(
            f"The samples of {first} hold nothing to learn from.",
            expected="samples of shape (C, H, W) or (F,)",
            got=f"samples of shape {shape}",
        )
    return shape


def check_classes(names: Sequence[str], labels: Mapping[str, NDArray[np.int64]]) -> None:
    """At least two classes, all names different, every class in train, no split empty.

    Args:
        names: Name of each class.
        labels: Of train, validation and test.

    Raises:
        DataError: Otherwise.
    """
    if len(names) < 2:
        raise DataError(
            "The data has fewer than two classes: there is nothing to tell apart.",
            expected="at least 2 classes",
            got=f"{len(names)}: {', '.join(names)}",
        )
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if list(names).count(name) > 1})
        raise DataError("A class name is given twice.", got=", ".join(twice))
    for split, values in labels.items():
        if len(values) == 0:
            raise DataError(
                f"The {split} split is empty.", expected="at least one sample", got="0 samples"
            )
    absent = np.flatnonzero(np.bincount(labels["train"], minlength=len(names)) == 0)
    if len(absent):
        raise DataError(
            "A class has no sample in the train split, so it cannot be learned.",
            expected=f"samples of all {len(names)} classes",
            got="none of "
            + ", ".join(repr(names[i]) for i in absent[:5])
            + (f" and {len(absent) - 5} more" if len(absent) > 5 else ""),
            todo="add samples, or leave the class out of `classes`",
        )


def check_memory(needed_bytes: int, limit_mib: int, where: str) -> None:
    """Refuse to read more than the recipe allows.

    Raises:
        DataError: It would not fit.
    """
    if needed_bytes > limit_mib * 2**20:
        raise DataError(
            f"{where} is larger than this source may read into memory.",
            expected=f"at most {limit_mib} MiB",
            got=f"{needed_bytes / 2**20:.0f} MiB",
            todo="raise `max_mib`, or keep the samples on disk with an image_folder source",
        )


def digests(values: NDArray[np.generic]) -> list[bytes]:
    """A short hash of each sample's bytes."""
    flat = np.ascontiguousarray(values)
    return [hashlib.blake2b(row.tobytes(), digest_size=12).digest() for row in flat]


def count_repeats(samples: Mapping[str, Sequence[bytes]]) -> dict[str, int]:
    """How many samples of validation and test are byte for byte a sample of train too.

    Args:
        samples: Hash of each sample of train, validation and test.

    Raises:
        DataError: All of a split are: whoever remembers train would score 100 %.
    """
    train, found = set(samples["train"]), {}
    for name in ("validation", "test"):
        found[name] = sum(digest in train for digest in samples[name])
        if found[name] == len(samples[name]):
            raise DataError(
                f"The {name} split repeats the train split.",
                expected="samples that training does not see",
                got=f"all {found[name]} samples of {name} are also in train",
                todo="give each split its own samples",
            )
    return found
