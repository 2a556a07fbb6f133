"""Samples and labels in one NumPy archive (.npz); pickled objects are refused."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import numpy as np
from pydantic import Field

from edgekd.core.config import Config, nearest
from edgekd.core.errors import DataError
from edgekd.core.hashing import sha256_bytes, sha256_file
from edgekd.tasks._contract import SOURCES, Data
from edgekd.tasks.sources._assemble import Pool, assemble, make_pool
from edgekd.tasks.sources._checks import check_memory
from edgekd.tasks.sources._scaling import Scaling
from edgekd.tasks.sources._splits import SPLITS, Seed, Share

if TYPE_CHECKING:
    from numpy.typing import NDArray

_Key = Literal["x", "y", "x_train", "y_train", "x_validation", "y_validation", "x_test", "y_test"]


@SOURCES.register
class Arrays(Config):
    """A NumPy archive (.npz) with either x and y, or x_train, y_train, x_test, y_test.

    The second kind may hold x_validation and y_validation too; otherwise validation is cut from
    train. Samples are images (N, H, W, C), (N, C, H, W) or grey (N, H, W), or feature vectors
    (N, F), stored as uint8 or as floats. Labels are class indices (N,) of an integer type.

    Attributes:
        path: The archive; a relative path starts at the recipe's folder.
        layout: Axes of 4-dimensional samples: NHWC (channels last) or NCHW.
        keys: Names in the archive where they are others, e.g. ``{x_train: train_images}``.
        classes: Names of the classes; counted and numbered when left out.
        validation: Share for validation: a fraction, or a number of samples.
        test: Share for test, the same way; only used with x and y.
        seed: Of the stratified split.
        scaling: How values are scaled.
        max_mib: The most the arrays may take in memory, MiB.
    """

    path: str
    layout: Literal["NHWC", "NCHW"] | None = None
    keys: dict[_Key, str] = {}
    classes: tuple[str, ...] | None = None
    validation: Share = 0.2
    test: Share = 0.2
    seed: Seed = 0
    scaling: Scaling = Scaling()
    max_mib: Annotated[int, Field(ge=1)] = 4096

    def load(self, folder: Path) -> Data:
        """Read the archive.

        Raises:
            DataError: It is missing, cut off, holds pickles, or its arrays do not fit together.
        """
        path = folder / self.path
        arrays = self._read(path)
        pools = {
            pool: self._pool(arrays, "" if pool == "all" else f"_{pool}", path.name)
            for pool in self._pools(arrays, path)
        }
        return assemble(
            pools,
            validation=self.validation,
            test=self.test if "all" in pools else None,
            seed=self.seed,
            classes=self.classes,
            scaling=self.scaling,
            content=sha256_bytes(f"{sha256_file(path)} {self.layout}".encode()),
            title=path.name,
        )

    def _read(self, path: Path) -> dict[str, NDArray[np.generic]]:
        """Every array of the archive that is one of ours, by our name."""
        if not path.is_file():
            raise DataError(
                f"There is no file {str(path)!r}.",
                expected="a NumPy archive (.npz)",
                todo="check `path`; a relative one starts at the recipe's folder",
            )
        if not zipfile.is_zipfile(path):
            raise DataError(
                f"{path} is not a NumPy archive, or it is cut off.",
                expected="a .npz file as np.savez writes it",
                got=f"{path.stat().st_size} bytes of something else",
            )
        try:
            with zipfile.ZipFile(path) as archive:
                check_memory(sum(i.file_size for i in archive.infolist()), self.max_mib, str(path))
            with np.load(path, allow_pickle=False) as archive:
                names: dict[str, str] = {key: key for key in get_args(_Key)}
                names |= {str(key): name for key, name in self.keys.items()}
                for key, name in self.keys.items():
                    if name not in archive.files:
                        hint = nearest(name, archive.files)
                        raise DataError(f"{path} holds no array {name!r} for {key}{hint}")
                found = {key: archive[n] for key, n in names.items() if n in archive.files}
        except (zipfile.BadZipFile, EOFError, OSError, ValueError) as e:
            pickled = "allow_pickle" in str(e)
            raise DataError(
                f"{path} holds Python objects, which only a pickle can read, and a pickle can run "
                "code."
                if pickled
                else f"{path} is damaged.",
                expected="arrays of numbers",
                got="" if pickled else str(e),
                todo="save plain arrays, without dtype=object" if pickled else "copy it again",
            ) from e

        for name, array in found.items():
            if not isinstance(array, np.ndarray):  # what NumPy gives for a member that is no array
                raise DataError(
                    f"{path} is damaged: {names[name]} in it is no array.",
                    expected="arrays of numbers",
                    todo="write the archive with np.savez",
                )
        return found

    def _pools(self, arrays: dict[str, NDArray[np.generic]], path: Path) -> tuple[str, ...]:
        """Which of the two kinds of archive it is, with everything that kind needs."""
        whole = {"x", "y"} <= set(arrays)
        parts = [s for s in SPLITS if {f"x_{s}", f"y_{s}"} <= set(arrays)]
        alone = [k for k in arrays if _partner(k) not in arrays]
        if alone:
            raise DataError(
                f"{path} holds {alone[0]} without {_partner(alone[0])}.",
                expected="samples and labels in pairs",
                got=", ".join(sorted(arrays)),
            )
        if whole == bool(parts) or (parts and not {"train", "test"} <= set(parts)):
            raise DataError(
                f"{path} does not hold the arrays of a data set.",
                expected="either x and y, or x_train, y_train, x_test and y_test",
                got=", ".join(sorted(arrays)) or "none of them",
                todo="say what they are called with `keys`, e.g. {x_train: train_images}",
            )
        return tuple(parts) or ("all",)

    def _pool(self, arrays: dict[str, NDArray[np.generic]], suffix: str, file: str) -> Pool:
        values, name = arrays[f"x{suffix}"], f"x{suffix} in {file}"
        if values.ndim == 4 and self.layout is None:
            raise DataError(
                f"{name} has four axes, and the recipe does not say which holds the channels.",
                expected="layout: NHWC or layout: NCHW",
                got=f"shape {values.shape}",
            )
        if values.ndim not in (2, 3, 4):
            raise DataError(
                f"{name} is neither images nor feature vectors.",
                expected="shape (N, F), (N, H, W), (N, H, W, C) or (N, C, H, W)",
                got=f"shape {values.shape}",
            )
        if values.ndim == 3:
            values = values[:, None]
        elif values.ndim == 4 and self.layout == "NHWC":
            values = np.ascontiguousarray(values.transpose(0, 3, 1, 2))
        return make_pool(values, arrays[f"y{suffix}"], name, y_origin=f"y{suffix} in {file}")


def _partner(key: str) -> str:
    return ("y" if key[0] == "x" else "x") + key[1:]
