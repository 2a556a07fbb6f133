"""Inputs checked against what a file asks for, so that no runtime casts or broadcasts silently."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekd.core.config import nearest
from edgekd.core.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgekd.backends._contract import Feeds
    from edgekd.core.types import TensorSpec


def check_feeds(specs: Sequence[TensorSpec], feeds: Feeds, *, source: str) -> None:
    """Raise unless `feeds` holds exactly the inputs that `specs` ask for.

    Args:
        specs: Of the file's inputs.
        feeds: One array per input.
        source: Where the feeds come from, for the error.

    Raises:
        DataError: A name, dtype or shape is wrong.
    """
    check_names(specs, feeds, source=source)
    for spec in specs:
        array = feeds[spec.name]
        if array.dtype.name != spec.dtype:
            raise DataError(
                f"The input {spec.name!r} of {source} has the wrong type.",
                expected=spec.dtype,
                got=array.dtype.name,
                todo=f"convert it with .astype({spec.dtype!r})",
            )
        if not fits(array.shape, spec.shape):
            raise DataError(
                f"The input {spec.name!r} of {source} has the wrong shape.",
                expected=shape_text(spec.shape),
                got=shape_text(array.shape),
            )


def check_names(specs: Sequence[TensorSpec], named: Mapping[str, object], *, source: str) -> None:
    """Raise unless the keys of `named` are the names of `specs`.

    Raises:
        DataError: One is missing or unknown.
    """
    wanted = [spec.name for spec in specs]
    for name in named:
        if name not in wanted:
            raise DataError(f"{source} holds the unknown input {name!r}{nearest(name, wanted)}")
    missing = [name for name in wanted if name not in named]
    if missing:
        raise DataError(
            f"{source} lacks the input{'s' if len(missing) > 1 else ''} {', '.join(missing)}.",
            expected=", ".join(wanted),
            got=", ".join(named) or "nothing",
        )


def fits(shape: Sequence[int], wanted: Sequence[int | None]) -> bool:
    """Whether an array's shape is one that a spec allows."""
    return len(shape) == len(wanted) and all(
        w in (None, s) for s, w in zip(shape, wanted, strict=True)
    )


def shape_text(shape: Sequence[int | None]) -> str:
    """``(1, None, 320)`` -> ``1 x ? x 320``; a scalar has no axes."""
    return " x ".join("?" if d is None else str(d) for d in shape) or "a scalar"
