"""Running an ONNX file that is only known by its outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from edgekd.backends._contract import BACKENDS
from edgekd.backends._onnx.file import check
from edgekd.core.config import nearest
from edgekd.core.errors import DataError, EdgekdError, RecipeError
from edgekd.core.hashing import sha256_file, sha256_json
from edgekd.core.imports import describe
from edgekd.core.target import load_target

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from edgekd.core.types import TensorSpec

#: probabilities below this are raised to it: log(1e-7) = -16.1, and exp of that is below float32's
#: resolution around 1
_FLOOR = 1e-7
#: how far a row's sum may be from 1 to look like probabilities, and to pass as the probabilities
#: that the recipe says they are (float16 rows of 1,000 classes are off by several 1e-3)
_SUM_SUSPICIOUS, _SUM_ACCEPTED = 1e-3, 2e-2
_FLOATS = ("float32", "float16", "float64")


class OnnxOutputs:
    """A loaded file with one input.

    Args:
        path: The file.
        probabilities: Its outputs are probabilities, not logits.
        output: Which output, where there are several.

    Attributes:
        input: Its only input.
        output: The output that is read.

    Raises:
        DataError: The file is missing, damaged or points outside its folder.
        RecipeError: Inputs or outputs are not what a teacher needs.
        UnsupportedError: ONNX Runtime refuses it.
    """

    def __init__(self, path: Path, *, probabilities: bool, output: str | None) -> None:
        if not path.is_file():
            raise DataError(
                f"There is no file {str(path)!r}.",
                expected="the teacher's ONNX file",
                todo="check teacher.onnx; a relative path starts at the recipe's folder",
            )
        target = load_target("x86-onnxruntime-fp32")
        backend = BACKENDS.get(target.backend)()
        self._path, self._name, self._probabilities = path, path.name, probabilities
        self._session = backend.open(path, target, threads=torch.get_num_threads())
        self.input = self._only_input(self._session.inputs)
        self.output = self._chosen_output(self._session.outputs, output)

    def sha256(self) -> str:
        """Over the file, the data files beside it, and how its outputs are read."""
        beside = sorted({external.location for external in check(self._path).externals})
        files = [self._path, *(self._path.parent / name for name in beside)]
        return sha256_json([*map(sha256_file, files), self.output.name, self._probabilities])

    def logits(self, inputs: Tensor) -> Tensor:
        """(B, *input_shape) -> (B, classes) float32.

        Files with a fixed batch size are fed that many samples at a time, the last ones padded.

        Raises:
            RecipeError: The inputs have another shape than the file's, or its outputs are
                probabilities that the recipe calls logits.
            DataError: Its outputs are declared probabilities and are not.
        """
        values = inputs.detach().cpu().numpy().astype(self.input.dtype)
        self._check_shape(values)
        fixed = self.input.shape[0]
        size = len(values) if fixed is None else fixed
        parts = [self._run(values[i : i + size], size) for i in range(0, len(values), size)]
        return torch.from_numpy(self._as_logits(np.concatenate(parts))).to(inputs.device)

    def _run(self, values: NDArray[np.generic], size: int) -> NDArray[np.float32]:
        count = len(values)
        if count < size:
            values = np.concatenate([values, np.repeat(values[-1:], size - count, axis=0)])
        try:
            found = self._session.run({self.input.name: values})[self.output.name]
        except EdgekdError:
            raise
        except Exception as e:
            # the contract leaves a runtime its own errors while it computes
            raise RecipeError(
                f"The teacher {self._name} cannot compute the data's inputs.",
                expected=f"inputs of shape {values.shape}",
                got=describe(e),
            ) from e
        return np.asarray(found, np.float32)[:count]

    def _as_logits(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        rows = values.reshape(len(values), -1).astype(np.float64)
        off = np.abs(rows.sum(axis=1) - 1).max() if (rows >= 0).all() else np.inf
        if not self._probabilities:
            if off < _SUM_SUSPICIOUS and rows.shape[1] > 1:
                raise RecipeError(
                    f"The outputs of the teacher {self._name} look like probabilities.",
                    expected="logits, which are negative too and do not sum to 1",
                    got="rows of numbers from 0 to 1 that sum to 1",
                    todo="set teacher.outputs: probabilities",
                )
            return values
        if not off < _SUM_ACCEPTED:
            raise DataError(
                f"The outputs of the teacher {self._name} are not probabilities.",
                expected="rows of numbers from 0 to 1 that sum to 1",
                got=f"numbers from {rows.min():.4g} to {rows.max():.4g}, "
                f"rows that sum to {rows.sum(axis=1).min():.4g} and more",
                todo="leave teacher.outputs out if they are logits",
            )
        return np.log(np.maximum(values, np.float32(_FLOOR)))

    def _check_shape(self, values: NDArray[np.generic]) -> None:
        wanted = self.input.shape
        fits = len(wanted) == values.ndim and all(
            side in (None, got) for side, got in zip(wanted[1:], values.shape[1:], strict=True)
        )
        if not fits:
            sides = ", ".join("any" if side is None else str(side) for side in wanted[1:])
            raise RecipeError(
                f"The teacher {self._name} takes inputs of another shape than the data's.",
                expected=f"samples of shape ({sides})",
                got=f"samples of shape {tuple(values.shape[1:])}",
                todo="change the data's layout, colour or size, or take another teacher",
            )

    def _only_input(self, inputs: tuple[TensorSpec, ...]) -> TensorSpec:
        if len(inputs) != 1 or inputs[0].dtype not in _FLOATS or not inputs[0].shape:
            raise RecipeError(
                f"The teacher {self._name} does not take one batch of numbers.",
                expected="one float input",
                got=", ".join(f"{i.name} ({i.dtype})" for i in inputs) or "no input",
            )
        return inputs[0]

    def _chosen_output(self, outputs: tuple[TensorSpec, ...], name: str | None) -> TensorSpec:
        by_name = {spec.name: spec for spec in outputs}
        if name is not None:
            if name not in by_name:
                hint = nearest(name, list(by_name))
                raise RecipeError(f"The teacher {self._name} has no output {name!r}{hint}")
            return by_name[name]
        if len(outputs) != 1:
            raise RecipeError(
                f"The teacher {self._name} has several outputs.",
                expected="the name of the one that holds the logits",
                got=", ".join(by_name) or "none",
                todo="set teacher.output",
            )
        return outputs[0]
