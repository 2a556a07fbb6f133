"""Cutting one set into disjoint train, validation and test splits, class by class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import BeforeValidator, Field

from edgekd.core.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Rows = NDArray[np.int64]

SPLITS = ("train", "validation", "test")


def _share(value: Any) -> Any:
    whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    if whole or (isinstance(value, float) and 0 < value < 1):
        return value
    raise ValueError(f"a fraction between 0 and 1 or a whole number of samples, got {value!r}")


#: a recipe field: a fraction of all samples (0.2), or a number of samples (5000)
Share = Annotated[int | float, BeforeValidator(_share)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


def divide(
    pools: Mapping[str, NDArray[np.int64]],
    *,
    validation: int | float,
    test: int | float | None = None,
    seed: int,
) -> dict[str, tuple[str, Rows]]:
    """Say for each split from which pool it comes and which rows of it.

    Args:
        pools: Labels of what the source found: ``{"all"}`` to be cut in three, ``{"train",
            "test"}`` where validation is cut from train, or all three splits as they are.
        validation: Share for validation, of the pool that is cut.
        test: Share for test; only read for ``{"all"}``.
        seed: Of the draw.

    Returns:
        split -> (pool, sorted rows). Rows of one pool never overlap.

    Raises:
        DataError: A share takes nothing, or leaves nothing for train.
    """
    rng = np.random.default_rng(seed)
    rows = {name: np.arange(len(labels), dtype=np.int64) for name, labels in pools.items()}
    if set(pools) == set(SPLITS):
        return {name: (name, rows[name]) for name in SPLITS}
    if set(pools) == {"train", "test"}:
        size = _size(validation, len(pools["train"]), "validation")
        taken, left = draw(pools["train"], size, rng)
        return {
            "train": ("train", left),
            "validation": ("train", taken),
            "test": ("test", rows["test"]),
        }
    if set(pools) != {"all"} or test is None:
        raise ValueError(f"cannot divide {sorted(pools)} with test={test}")
    labels = pools["all"]
    sizes = [_size(test, len(labels), "test"), _size(validation, len(labels), "validation")]
    if sum(sizes) >= len(labels):
        raise DataError(
            "Validation and test leave nothing to train on.",
            expected=f"together less than the {len(labels)} samples there are",
            got=f"{sizes[1]} for validation and {sizes[0]} for test",
        )
    for_test, rest = draw(labels, sizes[0], rng)
    taken, left = draw(labels[rest], sizes[1], rng)
    return {
        "train": ("all", rest[left]),
        "validation": ("all", rest[taken]),
        "test": ("all", for_test),
    }


def draw(labels: NDArray[np.int64], size: int, rng: np.random.Generator) -> tuple[Rows, Rows]:
    """Draw `size` rows, from each class in proportion; at least one row of each class stays.

    The whole-number share of a class is floor(count * size / N); what is then missing goes, one
    each, to the classes with the largest remainders (Hamilton's method), as far as they keep a
    row. Only if too few classes can give are fewer than `size` rows drawn.

    Args:
        labels: Class of each row, shape (N,), with 0 < size < N.
        size: Rows wanted.
        rng: Which rows of a class are taken.

    Returns:
        (drawn rows, rows left), both sorted.
    """
    _, counts = np.unique(labels, return_counts=True)
    share, remainder = np.divmod(counts * size, len(labels))
    can_give = share < counts - 1
    order = np.argsort(np.where(can_give, -remainder, 1), kind="stable")
    missing = min(size - int(share.sum()), int(can_give.sum()))
    share[order[:missing]] += 1
    by_class = np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])
    taken = np.zeros(len(labels), dtype=bool)
    for rows, count in zip(by_class, share, strict=True):
        taken[rng.permutation(rows)[:count]] = True
    return np.flatnonzero(taken), np.flatnonzero(~taken)


def _size(share: int | float, total: int, split: str) -> int:
    size = share if isinstance(share, int) else round(share * total)
    if not 0 < size < total:
        raise DataError(
            f"The {split} split cannot be cut out of {total} samples.",
            expected=f"1 to {total - 1} samples, or a fraction that comes to that",
            got=f"{split}: {share}, which is {size} samples",
        )
    return size
