"""Any torch-style Dataset that the user's own Python makes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from edgekd.core.config import Config
from edgekd.core.errors import DataError
from edgekd.core.hashing import sha256_arrays
from edgekd.core.imports import call_attribute, describe, importable
from edgekd.tasks._contract import SOURCES, Data
from edgekd.tasks.sources._assemble import Pool, assemble, make_pool
from edgekd.tasks.sources._checks import check_memory
from edgekd.tasks.sources._scaling import Scaling
from edgekd.tasks.sources._splits import SPLITS, Seed, Share

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray


@SOURCES.register
class Python(Config):
    """A function of yours that returns a torch Dataset, or one for each split.

    Item i of a Dataset is ``(input, label)``: a tensor or array of shape (C, H, W) or (F,), uint8
    or float, and a whole number. Everything is read once, in order, into memory, so a Dataset
    must not change its samples at random: augmentation belongs to training.

    Attributes:
        factory: ``module:attribute``; the module is searched in the recipe's folder first. It
            returns one Dataset, or a mapping with train, test and possibly validation.
        kwargs: Keyword arguments of the call.
        classes: Names of the classes; counted and numbered when left out.
        validation: Share for validation where it has to be cut: a fraction, or a number.
        test: Share for test where a single Dataset has to be cut.
        seed: Of the stratified split.
        scaling: How values are scaled; by default not at all (uint8 is divided by 255), because
            such Datasets mostly scale their own.
        max_mib: The most the samples may take in memory, MiB.
    """

    factory: str
    kwargs: dict[str, Any] = {}
    classes: tuple[str, ...] | None = None
    validation: Share = 0.2
    test: Share = 0.2
    seed: Seed = 0
    scaling: Scaling = Scaling(standardise=False)
    max_mib: Annotated[int, Field(ge=1)] = 4096

    def load(self, folder: Path) -> Data:
        """Call the factory and read what it returns.

        Raises:
            RecipeError: The factory cannot be imported or called.
            DataError: What it returns is not a data set.
        """
        made = call_attribute(
            self.factory, self.kwargs, folder, what="data set", field="data.factory"
        )
        with importable(folder):
            pools = {name: self._pool(name, part) for name, part in self._parts(made).items()}
        arrays = {f"x_{n}": p.values for n, p in pools.items()}
        arrays |= {f"y_{n}": p.labels for n, p in pools.items()}
        return assemble(
            pools,
            validation=self.validation,
            test=self.test if "all" in pools else None,
            seed=self.seed,
            classes=self.classes,
            scaling=self.scaling,
            content=sha256_arrays(arrays),
            title=self.factory,
        )

    def _parts(self, made: Any) -> Mapping[str, Any]:
        if _is_dataset(made) and not isinstance(made, dict):
            return {"all": made}
        if not isinstance(made, dict):
            raise DataError(
                f"{self.factory} did not return a data set.",
                expected="a Dataset with __len__ and __getitem__, or a mapping of train and test",
                got=type(made).__name__,
            )
        if not {"train", "test"} <= set(made) <= set(SPLITS):
            raise DataError(
                f"{self.factory} returned a mapping with other keys than splits.",
                expected="train, test and possibly validation",
                got=", ".join(map(str, made)) or "an empty mapping",
            )
        for name, part in made.items():
            if not _is_dataset(part):
                raise DataError(
                    f"{self.factory} returned no data set for {name}.",
                    expected="a Dataset with __len__ and __getitem__",
                    got=type(part).__name__,
                )
        return made

    def _pool(self, name: str, dataset: Any) -> Pool:
        """Read a whole Dataset in order."""
        where = f"{name} of {self.factory}" if name != "all" else self.factory
        count = len(dataset)
        values: NDArray[np.generic] = np.empty((count,), np.float32)
        labels = np.empty(count, np.int64)
        for i in range(count):
            value, label = self._item(dataset, i, where)
            if i == 0:
                check_memory(value.nbytes * count, self.max_mib, where)
                values = np.empty((count, *value.shape), value.dtype)
            elif (value.shape, value.dtype) != (values.shape[1:], values.dtype):
                raise DataError(
                    f"Sample {i} of {where} differs in shape or type from sample 0.",
                    expected=f"shape {values.shape[1:]}, {values.dtype}",
                    got=f"shape {value.shape}, {value.dtype}",
                )
            values[i], labels[i] = value, label
        return make_pool(values, labels, where)

    def _item(self, dataset: Any, i: int, where: str) -> tuple[NDArray[np.generic], int]:
        try:
            item = dataset[i]
        except Exception as e:
            raise DataError(f"Sample {i} of {where} cannot be read.", got=describe(e)) from e
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise DataError(
                f"Sample {i} of {where} is not a pair.",
                expected="(input, label)",
                got=type(item).__name__,
            )
        value, label = (_as_array(part) for part in item)
        if value is None:
            raise DataError(
                f"The input of sample {i} of {where} is not numbers.",
                expected="a tensor or an array, uint8 or float",
                got=type(item[0]).__name__,
                todo="convert it in the Dataset, e.g. torchvision's PILToTensor()",
            )
        if label is None or label.size != 1 or label.dtype.kind not in "iu":
            raise DataError(
                f"The label of sample {i} of {where} is not a whole number.",
                expected="one class index that starts at 0",
                got=f"{item[1]!r:.60}",
            )
        return value, int(label.reshape(-1)[0])


def _is_dataset(value: Any) -> bool:
    return hasattr(value, "__len__") and hasattr(value, "__getitem__")


def _as_array(value: Any) -> NDArray[np.generic] | None:
    """A tensor, array or number as an array of numbers; anything else is None."""
    if hasattr(value, "detach"):  # a torch tensor, wherever it lives
        value = value.detach().cpu()
        value = value.float().numpy() if value.is_floating_point() else value.numpy()
    if not isinstance(value, np.ndarray | np.generic | int | float):
        return None
    array = np.asarray(value)
    if array.dtype.kind == "f":
        return array.astype(np.float32)
    return array if array.dtype.kind in "iu" else None
