"""From samples in memory to a checked `Data`; image folders share the last step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgekd.core.errors import DataError
from edgekd.core.hashing import sha256_arrays, sha256_json
from edgekd.tasks._contract import Data, Split
from edgekd.tasks.sources import _checks
from edgekd.tasks.sources._scaling import ChannelScale, Scaling, fit_scale
from edgekd.tasks.sources._splits import SPLITS, divide

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from edgekd.tasks.sources._splits import Rows


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """Samples as a source read them, before they are split.

    Attributes:
        values: uint8 or float32, shape (N, *input_shape).
        labels: Class index of each, shape (N,).
        origin: Where they stand, for errors: "x_train in data.npz".
        y_origin: Where the labels stand.
    """

    values: NDArray[np.generic]
    labels: NDArray[np.int64]
    origin: str
    y_origin: str


@dataclass(frozen=True, slots=True, eq=False)
class ArraySplit:
    """Some rows of samples in memory, scaled when a batch is asked for.

    Attributes:
        values: uint8 or float32, shape (N, *input_shape); shared by the splits of one pool.
        rows: Which of them belong to this split, shape (M,).
        labels: Of those rows, shape (M,).
        scale: Applied to each batch.
        name: Of the split, for errors.
    """

    values: NDArray[np.generic]
    rows: Rows
    labels: NDArray[np.int64]
    scale: ChannelScale
    name: str

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.rows)

    def batch(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """Scaled inputs (B, *input_shape) of those samples.

        Raises:
            DataError: Scaling drives a value out of float32.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            out = self.scale.apply(self.values[self.rows[indices]])
        if self.values.dtype != np.uint8 and not np.isfinite(out).all():
            row = np.flatnonzero(~np.isfinite(out).reshape(len(out), -1).all(axis=1))[0]
            raise DataError(
                f"Sample {indices[row]} of {self.name} is not finite after scaling.",
                expected="values that fit into float32",
                got=f"std {min(self.scale.std):g}",
                todo="give a larger std, or store the data in another unit",
            )
        return out


def make_pool(
    values: NDArray[np.generic], labels: NDArray[np.generic], origin: str, *, y_origin: str = ""
) -> Pool:
    """Check what can be checked before splitting, and store floats as float32.

    Args:
        values: Samples, shape (N, *input_shape), any integer or float type; integers other than
            uint8 are used as they are, as floats.
        labels: Shape (N,).
        origin: Where the samples stand, for errors.
        y_origin: Where the labels stand, if elsewhere.

    Raises:
        DataError: Lengths differ, labels are no integers, or a value is not finite.
    """
    if values.dtype.kind not in "iufb":
        raise DataError(
            f"{origin} does not hold numbers.",
            expected="uint8 or a float type",
            got=f"type {values.dtype}",
        )
    classes = _checks.as_labels(labels, y_origin or origin)
    _checks.check_lengths(values, classes, origin)
    if values.dtype != np.uint8:
        with np.errstate(over="ignore"):
            values = values.astype(np.float32)
        _checks.check_finite(values, origin)
    return Pool(values, classes, origin, y_origin or origin)


def assemble(
    pools: Mapping[str, Pool],
    *,
    validation: int | float,
    test: int | float | None = None,
    seed: int,
    classes: Sequence[str] | None,
    scaling: Scaling,
    content: str,
    title: str,
) -> Data:
    """Split, check, fit the scale on train, and describe.

    Args:
        pools: See `divide`.
        validation: See `divide`.
        test: See `divide`.
        seed: Of the splitting.
        classes: Names; when None the classes are counted and named "0", "1", ….
        scaling: As the recipe gives it.
        content: sha256 of what was read.
        title: What the data is, in a few words.

    Raises:
        DataError: The data is not usable.
        RecipeError: The scaling does not fit it.
    """
    shape = _checks.check_shapes({p.origin: p.values.shape[1:] for p in pools.values()})
    kinds = {p.values.dtype for p in pools.values()}
    if len(kinds) > 1:
        raise DataError(
            "The parts of the data are stored in different types, so they cannot share a scale.",
            expected="all uint8 or all float",
            got=", ".join(f"{p.origin}: {p.values.dtype}" for p in pools.values()),
        )
    names = name_classes({p.y_origin: p.labels for p in pools.values()}, classes)
    parts = divide(
        {name: pool.labels for name, pool in pools.items()},
        validation=validation,
        test=test,
        seed=seed,
    )
    labels = {split: pools[pool].labels[rows] for split, (pool, rows) in parts.items()}
    _checks.check_classes(names, labels)
    hashes = {name: _checks.digests(pool.values) for name, pool in pools.items()}
    repeats = _checks.count_repeats(
        {split: [hashes[pool][i] for i in rows] for split, (pool, rows) in parts.items()}
    )
    train_pool, train_rows = parts["train"]
    scale = fit_scale(pools[train_pool].values, train_rows, scaling)
    splits = {
        split: ArraySplit(pools[pool].values, rows, labels[split], scale, split)
        for split, (pool, rows) in parts.items()
    }
    return finish(
        splits,
        names=names,
        shape=shape,
        content=content,
        parts=parts,
        scale=scale,
        title=title,
        repeats=repeats,
    )


def name_classes(
    labels: Mapping[str, NDArray[np.int64]], classes: Sequence[str] | None
) -> tuple[str, ...]:
    """The given class names, or one number for each label up to the largest.

    Args:
        labels: By where they stand, for errors.
        classes: Names as given; None to count.

    Raises:
        DataError: A label is out of range.
    """
    most = 1 << 20  # a label beyond that is a mistake, not a class
    count = len(classes) if classes is not None else most
    for where, values in labels.items():
        _checks.check_range(values, count, where)
    if classes is not None:
        return tuple(classes)
    return tuple(str(i) for i in range(1 + max(int(v.max()) for v in labels.values())))


def finish(
    splits: Mapping[str, Split],
    *,
    names: tuple[str, ...],
    shape: tuple[int, ...],
    content: str,
    parts: Mapping[str, tuple[str, Rows]],
    scale: ChannelScale,
    title: str,
    repeats: Mapping[str, int],
) -> Data:
    """The `Data`, with its fingerprint over content, splits and scale, and its description."""
    rows: dict[str, NDArray[np.generic]] = {
        f"{split} of {pool}": rows for split, (pool, rows) in parts.items()
    }
    fingerprint = sha256_json(
        {
            "content": content,
            "splits": sha256_arrays(rows),
            "labels": sha256_arrays({split: splits[split].labels for split in SPLITS}),
            "scale": [scale.divisor, *scale.mean, *scale.std],
            "classes": names,
            "shape": shape,
        }
    )
    counts = " + ".join(f"{len(splits[split]):,} {split}" for split in SPLITS)
    twice = [f"{n} of {split}" for split, n in repeats.items() if n]
    return Data(
        train=splits["train"],
        validation=splits["validation"],
        test=splits["test"],
        classes=names,
        input_shape=shape,
        fingerprint=fingerprint,
        description=f"{title}: {counts} samples of {'x'.join(map(str, shape))}, "
        f"{len(names)} classes"
        + (f"; {' and '.join(twice)} also stand in train" if twice else ""),
    )
