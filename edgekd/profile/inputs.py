"""Inputs for a model that edgekd never saw: random ones, or the user's own."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

import numpy as np

from edgekd.backends._feeds import check_feeds, check_names, fits, shape_text
from edgekd.core.config import nearest
from edgekd.core.errors import DataError, RecipeError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from edgekd.backends._contract import Feeds
    from edgekd.core.types import TensorSpec

_EXAMPLE_SIZE = 320


def parse_shapes(texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """``["images=1x3x320x320"]`` -> ``{"images": (1, 3, 320, 320)}``; ``name=`` is a scalar.

    Raises:
        RecipeError: A text is not of that form, or names an input twice.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, equals, sizes = text.rpartition("=")
        parts = sizes.split("x") if sizes else []
        if not equals or not name or not all(p.isdecimal() and p.isascii() for p in parts):
            raise RecipeError(
                f"--shape {text} is not a shape.", expected="--shape name=1x3x320x320", got=text
            )
        if name in shapes:
            raise RecipeError(f"--shape gives {name!r} twice.")
        shapes[name] = tuple(map(int, parts))
    return shapes


def make_feeds(
    inputs: Sequence[TensorSpec],
    shapes: Mapping[str, tuple[int, ...]],
    *,
    seed: int,
    count: int,
) -> list[Feeds]:
    """Random inputs: standard normal floats, zeros and ones for integers and booleans.

    Small integers keep every token, index or mask of an unknown model within its range.

    Args:
        inputs: What the model asks for.
        shapes: By input name; for every axis that the model leaves open but the first, which
            becomes a batch of 1.
        seed: Of the random numbers.
        count: How many.

    Raises:
        RecipeError: A shape is missing, contradicts the model, or names no input.
    """
    names = [spec.name for spec in inputs]
    for name in shapes:
        if name not in names:
            raise RecipeError(
                f"--shape names no input of the model: {name!r}{nearest(name, names)}"
            )
    full = _full_shapes(inputs, shapes)
    rng = np.random.default_rng(seed)
    return [{s.name: _random(s, full[s.name], rng) for s in inputs} for _ in range(count)]


def load_feeds(path: Path, inputs: Sequence[TensorSpec]) -> list[Feeds]:
    """The user's own inputs from an .npz with one array per input name.

    The first axis of an array holds the samples: where the model fixes it, the array is cut into
    pieces of that size; where the model leaves it open, samples are fed one at a time. An array
    that fits the model as a whole while others hold several samples is fed to each of them.

    Raises:
        DataError: No such file, not an .npz, a pickle inside, or a name, dtype, shape or value
            that the model cannot take.
    """
    return cut(read_npz(path), inputs, path)


def cut(
    arrays: Mapping[str, NDArray[np.generic]], inputs: Sequence[TensorSpec], path: Path
) -> list[Feeds]:
    """One array per input name cut into the feeds of one inference each; see `load_feeds`.

    Raises:
        DataError: A name, dtype, shape or value that the model cannot take.
    """
    check_names(inputs, arrays, source=str(path))
    pieces = {spec.name: _cut(arrays[spec.name], spec, path) for spec in inputs}
    counts = {name: len(parts) for name, parts in pieces.items() if len(parts) > 1}
    if len(set(counts.values())) > 1:
        raise DataError(
            f"{path} holds different numbers of samples.",
            expected="the same number for every input",
            got=", ".join(f"{name}: {count}" for name, count in counts.items()),
        )
    total = max(counts.values(), default=1)
    feeds: list[Feeds] = [
        {name: parts[i % len(parts)] for name, parts in pieces.items()} for i in range(total)
    ]
    check_feeds(inputs, feeds[0], source=str(path))
    return feeds


def read_npz(path: Path) -> dict[str, NDArray[np.generic]]:
    """Every array of an .npz.

    Raises:
        DataError: No such file, not an .npz, or a pickle inside.
    """
    try:
        with path.open("rb") as f:
            archive = np.load(f, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise DataError(
                    f"{path} holds a single array.",
                    expected="an .npz with one array per input of the model",
                    todo="write it with numpy.savez(path, name=array)",
                )
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError as e:
        raise DataError(f"There is no file {path}.", expected="an .npz of inputs") from e
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as e:
        text = str(e).splitlines()[0] if str(e) else type(e).__name__
        raise DataError(
            f"{path} cannot be read.",
            expected="an .npz of plain arrays, without pickled objects",
            got=text,
            todo="write it with numpy.savez(path, name=array)",
        ) from e


def save_feeds(path: Path, feeds: Feeds) -> None:
    """Write the inputs of one inference as an .npz.

    Not `numpy.savez`, which cannot hold an input called "file".
    """
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in feeds.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)


def batch_size(feeds: Feeds) -> int:
    """Length of the first axis of the first input that has one; 1 without any."""
    return next((a.shape[0] for a in feeds.values() if a.ndim), 1)


def _full_shapes(
    inputs: Sequence[TensorSpec], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
    full: dict[str, tuple[int, ...]] = {}
    open_axes: list[TensorSpec] = []
    for spec in inputs:
        given = shapes.get(spec.name)
        if given is None:
            given = tuple(1 if d is None and i == 0 else d or 0 for i, d in enumerate(spec.shape))
            if None in spec.shape[1:]:
                open_axes.append(spec)
        elif not fits(given, spec.shape):
            raise RecipeError(
                f"--shape {spec.name}={'x'.join(map(str, given))} does not fit the model.",
                expected=shape_text(spec.shape),
                got=shape_text(given),
            )
        full[spec.name] = given
    if open_axes:
        raise RecipeError(
            "The model leaves the shape of its inputs open.",
            expected="a size for every axis but the first",
            got="; ".join(f"{s.name}: {shape_text(s.shape)}" for s in open_axes),
            todo="give " + " ".join(map(_example, open_axes)) + " with your own sizes",
        )
    return full


def _example(spec: TensorSpec) -> str:
    image = len(spec.shape) == 4
    sizes = [
        d if d is not None else 1 if i == 0 else _EXAMPLE_SIZE if image else 16
        for i, d in enumerate(spec.shape)
    ]
    return f"--shape {spec.name}={'x'.join(map(str, sizes))}"


def _random(
    spec: TensorSpec, shape: tuple[int, ...], rng: np.random.Generator
) -> NDArray[np.generic]:
    dtype = np.dtype(spec.dtype)
    if dtype.kind == "f":
        return np.asarray(rng.standard_normal(shape), dtype)
    if dtype.kind in "iub":
        return np.asarray(rng.integers(0, 2, shape), dtype)
    raise RecipeError(
        f"The input {spec.name!r} holds {spec.dtype}, for which nothing random can be made.",
        todo="give your own inputs with --inputs file.npz",
    )


def _cut(array: NDArray[np.generic], spec: TensorSpec, path: Path) -> list[NDArray[np.generic]]:
    """Pieces of the array that one inference takes each."""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DataError(f"The input {spec.name!r} of {path} holds NaN or infinity.")
    if not array.size and all(size != 0 for size in spec.shape) and None not in spec.shape[1:]:
        raise DataError(f"The input {spec.name!r} of {path} holds no samples.")
    size = (spec.shape[0] or 1) if spec.shape else 1
    if not array.ndim or len(array) <= size or not fits(array.shape[1:], spec.shape[1:]):
        return [array]  # as a whole, or wrong in a way that check_feeds names
    if len(array) % size:
        raise DataError(
            f"The input {spec.name!r} of {path} cannot be cut into batches.",
            expected=f"a multiple of {size} samples, the batch that the model takes",
            got=f"{len(array)} samples",
        )
    return [array[i : i + size] for i in range(0, len(array), size)]
