"""Samples to quantize a model with: real ones from files, or random ones that are called so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgekd.core.errors import DataError, RecipeError
from edgekd.profile.inputs import cut, make_feeds, read_npz

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from edgekd.backends._contract import Feeds
    from edgekd.core.types import TensorSpec

RANDOM = "random"
RANDOM_NOTE = "calibrated on random data: ranges are not those of real inputs"
_HELD_OUT_SHARE, _HELD_OUT_MOST = 4, 64
_SEED = 0


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Feeds of one inference each.

    Attributes:
        calibration: To read ranges from.
        held_out: To compare on; none of them was calibrated on.
        real: They come from the user; False for random ones, which prove nothing about accuracy.
        note: Where they come from, for people and for the conditions of a measurement.
    """

    calibration: Sequence[Feeds]
    held_out: Sequence[Feeds]
    real: bool
    note: str


def real_samples(path: Path, inputs: Sequence[TensorSpec], *, most: int) -> Samples:
    """The user's own samples, a quarter of them (at most 64) held out.

    Args:
        path: An .npz with one array per input name; an .npy, for a model with one input; or a
            folder of .npy files, either one per input, called as it, or for a model with one input
            one or several samples in each. The first axis holds the samples, as in `load_feeds`.
        inputs: What the model asks for.
        most: Samples to calibrate on, at most.

    Raises:
        DataError: No such file, fewer than two samples, or a name, dtype, shape or value that the
            model cannot take.
    """
    feeds = _feeds(path, inputs)
    if len(feeds) < 2:
        raise DataError(
            f"{path} holds {len(feeds) or 'no'} sample{'s' if len(feeds) != 1 else ''}.",
            expected="at least two: one to calibrate on, another to compare on",
            got=", ".join(f"{s.name}: {_shape(feeds, s.name)}" for s in inputs),
            todo="give a hundred or so that look like what the model will meet",
        )
    order = np.random.default_rng(_SEED).permutation(len(feeds))  # files are often sorted by class
    held = min(max(len(feeds) // _HELD_OUT_SHARE, 1), _HELD_OUT_MOST)
    chosen = order[held : held + most]
    return Samples(
        calibration=[feeds[i] for i in sorted(chosen)],
        held_out=[feeds[i] for i in sorted(order[:held])],
        real=True,
        note=f"{len(chosen)} of {len(feeds)} samples from {path.name}, {held} others held out",
    )


def random_samples(
    inputs: Sequence[TensorSpec], shapes: Mapping[str, tuple[int, ...]], *, most: int
) -> Samples:
    """Random inputs of the right shapes; ranges read from them hold for no real input.

    Raises:
        RecipeError: A shape is missing or wrong, or nothing random can be made of an input's type.
    """
    held = max(most // _HELD_OUT_SHARE, 1)
    feeds = make_feeds(inputs, shapes, seed=_SEED, count=most + held)
    return Samples(feeds[:most], feeds[most:], real=False, note=f"random, seed {_SEED}")


def refuse_shapes(shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise where shapes are given beside real samples, which bring their own.

    Raises:
        RecipeError: There are any.
    """
    if shapes:
        raise RecipeError(
            "--shape is for random data; real samples bring their own shapes.",
            got=", ".join(shapes),
            todo="take --shape out",
        )


def _feeds(path: Path, inputs: Sequence[TensorSpec]) -> list[Feeds]:
    if path.is_dir():
        return _from_folder(path, inputs)
    if path.suffix == ".npy":
        return cut({_only(inputs, path).name: _array(path)}, inputs, path)
    return cut(read_npz(path), inputs, path)


def _from_folder(folder: Path, inputs: Sequence[TensorSpec]) -> list[Feeds]:
    files = {file.stem: file for file in sorted(folder.glob("*.npy"))}
    if not files:
        raise DataError(
            f"The folder {folder} holds no .npy files.",
            expected=f"one for each of {', '.join(spec.name for spec in inputs)}",
            todo="write them with numpy.save",
        )
    names = {spec.name for spec in inputs}
    if len(inputs) > 1 or names & files.keys():
        return cut({name: _array(file) for name, file in files.items()}, inputs, folder)
    name = inputs[0].name
    return [f for file in files.values() for f in cut({name: _array(file)}, inputs, file)]


def _only(inputs: Sequence[TensorSpec], path: Path) -> TensorSpec:
    if len(inputs) == 1:
        return inputs[0]
    raise DataError(
        f"{path} holds one array, and the model has {len(inputs)} inputs.",
        expected=f"an .npz with {', '.join(spec.name for spec in inputs)}",
        todo="write it with numpy.savez(path, name=array, …)",
    )


def _array(path: Path) -> NDArray[np.generic]:
    """An .npy, left on the disk until it is read."""
    try:
        found: NDArray[np.generic] = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(found, np.ndarray):
            raise ValueError("it holds an archive")
    except FileNotFoundError as e:
        raise DataError(f"There is no file {path}.", expected="an .npy of samples") from e
    except (OSError, ValueError, EOFError) as e:
        raise DataError(
            f"{path} cannot be read.",
            expected="an .npy of a plain array, without pickled objects",
            got=next(iter(str(e).splitlines()), type(e).__name__),
            todo="write it with numpy.save",
        ) from e
    return found


def _shape(feeds: Sequence[Feeds], name: str) -> str:
    return " x ".join(map(str, feeds[0][name].shape)) if feeds else "nothing"
