"""Views: random changes of images that depend on nothing but (seed, view, sample).

Whatever batch a sample comes in, in view v it looks the same to the last bit. So a teacher's
outputs can be stored per view, and a resumed training sees what an undisturbed one would have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from edgekd.core.errors import RecipeError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from edgekd.distill.settings import Augment


def check_augment(augment: Augment, input_shape: tuple[int, ...]) -> None:
    """Refuse changes that the inputs cannot take.

    Raises:
        RecipeError: The inputs are no images, or smaller than the crop.
    """
    if not augment.changes:
        return
    if len(input_shape) != 3:
        raise RecipeError(
            "augment changes images, and these inputs are none.",
            expected="inputs of shape (channels, height, width), or crop_px: 0 and flip: false",
            got=f"{input_shape}",
        )
    if augment.crop_px >= min(input_shape[1:]):
        raise RecipeError(
            "augment.crop_px is too large for the images.",
            expected=f"less than {min(input_shape[1:])} pixels",
            got=f"{augment.crop_px}",
        )


def apply_view(
    images: Tensor, indices: NDArray[np.int64], augment: Augment, *, view: int, seed: int
) -> Tensor:
    """Samples as they look in one view.

    Args:
        images: Plain samples, (B, C, H, W); any shape when `augment` changes nothing.
        indices: Position of each in the train split, (B,).
        augment: Which changes.
        view: Number of the view.
        seed: Of all views.

    Returns:
        A new tensor of the same shape, or `images` itself when nothing changes.
    """
    if not augment.changes:
        return images
    height, width = images.shape[2:]
    pad = augment.crop_px
    span = np.uint64(2 * pad + 1)
    down, right, mirror = _draws(seed, view, indices)
    rows = _window(height, (down % span).astype(np.int64) - pad)
    columns = _window(width, (right % span).astype(np.int64) - pad)
    if augment.flip:
        mirrored = (mirror & np.uint64(1)).astype(bool)
        columns[mirrored] = columns[mirrored, ::-1]
    source = torch.from_numpy(rows[:, :, None] * width + columns[:, None, :]).flatten(1)
    flat = images.flatten(2)  # gather on flat pixels is many times faster than indexing rows
    return flat.gather(2, source[:, None].expand(-1, flat.shape[1], -1)).view(images.shape)


def _window(size: int, shifts: NDArray[np.int64]) -> NDArray[np.int64]:
    """(B, size): where each pixel comes from under each shift, mirrored at the edges."""
    position: NDArray[np.int64] = np.arange(size, dtype=np.int64)[None] + shifts[:, None]
    position = np.abs(position)
    position = np.minimum(position, 2 * (size - 1) - position)
    return position


def _draws(seed: int, view: int, indices: NDArray[np.int64]) -> tuple[NDArray[np.uint64], ...]:
    """Three independent 64-bit numbers per sample, by hashing instead of a generator's state."""
    base = np.full(len(indices), seed & 0xFFFF_FFFF_FFFF_FFFF, dtype=np.uint64)
    sample = _mix(_mix(_mix(base) ^ np.uint64(view)) ^ indices.astype(np.uint64))
    return tuple(_mix(sample ^ np.uint64(stream)) for stream in (1, 2, 3))


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea, Flood, 2014): a bijection that scatters bits."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
