"""Images in folders that carry the name of their class."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field

from edgekd.core.config import Config
from edgekd.core.errors import DataError
from edgekd.core.hashing import sha256_json
from edgekd.tasks._contract import SOURCES, Data
from edgekd.tasks.sources import _checks
from edgekd.tasks.sources._assemble import finish
from edgekd.tasks.sources._images import Decoding, decode, inspect
from edgekd.tasks.sources._listing import Listing
from edgekd.tasks.sources._scaling import ChannelScale, Scaling, fit_scale
from edgekd.tasks.sources._splits import SPLITS, Seed, Share, divide

if TYPE_CHECKING:
    from numpy.typing import NDArray

_Side = Annotated[int, Field(ge=1, le=16384)]
_SCALE_SAMPLES = 2048


@SOURCES.register
class ImageFolder(Config):
    """PNG, JPEG, BMP, WebP or PPM files in one folder per class.

    The folder holds the class folders themselves, or ``train``, ``test`` and possibly
    ``validation`` folders that each hold the class folders. Images are decoded when they are
    first needed. Hidden files are ignored; links that lead out of the folder are refused.

    Attributes:
        folder: Where the images are; a relative path starts at the recipe's folder.
        colour: "rgb" (3 channels, transparency is dropped) or "grey" (1 channel).
        size: [height, width] that every image is resized to, without keeping its proportions.
            When left out, all images must have the same size already.
        validation: Share for validation where it has to be cut: a fraction, or a number.
        test: Share for test where there is no test folder.
        seed: Of the stratified split.
        scaling: How pixels are scaled. What is left out is computed on at most 2,048 training
            images, evenly picked.
        max_pixels: Images with more pixels are refused.
        keep_mib: Decoded images are kept in memory if all of them take no more than this, MiB.
    """

    folder: str
    colour: Literal["rgb", "grey"] = "rgb"
    size: tuple[_Side, _Side] | None = None
    validation: Share = 0.2
    test: Share = 0.2
    seed: Seed = 0
    scaling: Scaling = Scaling()
    max_pixels: Annotated[int, Field(ge=1)] = 50_000_000
    keep_mib: Annotated[int, Field(ge=0)] = 1024

    def load(self, folder: Path) -> Data:
        """Find the files, hash them and read their headers.

        Raises:
            DataError: A folder is missing or empty, or a file is no image or leaves the folder.
        """
        root = (folder / self.folder).resolve()
        listing = Listing(root)
        pools = {pool: listing.classes(path) for pool, path in listing.pools().items()}
        names = tuple(sorted(set().union(*pools.values())))
        paths = {
            pool: [path for name in names for path in classes.get(name, ())]
            for pool, classes in pools.items()
        }
        labels = {
            pool: np.repeat(
                np.arange(len(names)), [len(classes.get(name, ())) for name in names]
            ).astype(np.int64)
            for pool, classes in pools.items()
        }
        hashes, size = self._inspect([path for found in paths.values() for path in found])
        parts = divide(
            labels,
            validation=self.validation,
            test=self.test if "all" in pools else None,
            seed=self.seed,
        )
        by_split = {split: labels[pool][rows] for split, (pool, rows) in parts.items()}
        _checks.check_classes(names, by_split)
        files = {split: [paths[pool][i] for i in rows] for split, (pool, rows) in parts.items()}
        repeats = _checks.count_repeats(
            {split: [bytes.fromhex(hashes[path]) for path in files[split]] for split in SPLITS}
        )
        shape = (1 if self.colour == "grey" else 3, *size)
        decoder = self._decoding()
        keep = sum(map(len, files.values())) * int(np.prod(shape)) <= self.keep_mib * 2**20
        images = {s: _Images(tuple(files[s]), shape, decoder, keep=keep) for s in SPLITS}
        scale = self._scale(images["train"], shape)
        content = {str(path.relative_to(root)): digest for path, digest in sorted(hashes.items())}
        return finish(
            {s: FolderSplit(images[s], by_split[s], scale) for s in SPLITS},
            names=names,
            shape=shape,
            content=sha256_json(content),
            parts=parts,
            scale=scale,
            title=f"images in {root.name}"
            + (f" ({listing.others} other files ignored)" if listing.others else ""),
            repeats=repeats,
        )

    def _decoding(self) -> Decoding:
        mode = "L" if self.colour == "grey" else "RGB"
        return Decoding(mode, self.size, self.max_pixels)

    def _inspect(self, paths: list[Path]) -> tuple[dict[Path, str], tuple[int, int]]:
        """sha256 of each file, and the (height, width) that all decoded images have."""
        hashes, first = {}, None
        for path in paths:
            hashes[path], size = inspect(path, self._decoding())
            first = first or (path, size)
            if self.size is None and size != first[1]:
                raise DataError(
                    f"The images differ in size: {path} and {first[0]}.",
                    expected=f"{first[1][0]} x {first[1][1]} pixels (height x width) for all",
                    got=f"{size[0]} x {size[1]}",
                    todo=f"give a size for all of them, e.g. size: [{first[1][0]}, {first[1][1]}]",
                )
        if first is None:
            raise DataError("The image folder holds no images.")
        return hashes, self.size or first[1]

    def _scale(self, train: _Images, shape: tuple[int, ...]) -> ChannelScale:
        if self.scaling.mean is not None or not self.scaling.standardise:
            sample = np.zeros((1, *shape), np.uint8)
        else:
            count = len(train.paths)
            rows = np.unique(np.linspace(0, count - 1, min(count, _SCALE_SAMPLES)).astype(int))
            sample = np.stack([train.pixels(row) for row in rows])
        return fit_scale(sample, np.arange(len(sample)), self.scaling)


class _Images:
    """The files of one split; remembers what it decoded if `keep`."""

    def __init__(
        self, paths: tuple[Path, ...], shape: tuple[int, ...], decoding: Decoding, *, keep: bool
    ) -> None:
        self.paths, self.shape, self._decoding = paths, shape, decoding
        self._kept: dict[int, NDArray[np.uint8]] | None = {} if keep else None

    def pixels(self, row: int) -> NDArray[np.uint8]:
        """Pixels (C, H, W) of one image."""
        if self._kept is not None and row in self._kept:
            return self._kept[row]
        pixels = decode(self.paths[row], self._decoding)
        if pixels.shape != self.shape:
            raise DataError(
                f"The image {self.paths[row]} changed while it was used.",
                expected=f"shape {self.shape}",
                got=f"shape {pixels.shape}",
            )
        if self._kept is not None:
            self._kept[row] = pixels
        return pixels


@dataclass(frozen=True, slots=True, eq=False)
class FolderSplit:
    """Images of one split, decoded when a batch is asked for.

    Attributes:
        images: The files.
        labels: Class index of each file, shape (N,).
        scale: Applied to each batch.
    """

    images: _Images
    labels: NDArray[np.int64]
    scale: ChannelScale

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images.paths)

    def batch(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """Scaled images (B, C, H, W).

        Raises:
            DataError: A file is damaged; the text names it.
        """
        return self.scale.apply(np.stack([self.images.pixels(int(i)) for i in indices]))
