"""The teacher: trained here, built by the user's own Python, or an ONNX file as a black box."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import torch
from pydantic import model_validator
from torch import Tensor, nn

from edgekd.core.config import Config
from edgekd.core.errors import DataError, EdgekdError, RecipeError, UnsupportedError
from edgekd.core.imports import call_attribute, describe
from edgekd.distill._onnx_teacher import OnnxOutputs
from edgekd.distill.objectives._contract import LOGITS
from edgekd.distill.settings import TrainSettings
from edgekd.distill.taps import Taps
from edgekd.distill.weights import fill, load_weights
from edgekd.students._contract import FAMILIES

if TYPE_CHECKING:
    from edgekd.students._contract import Family, NetSpec
    from edgekd.tasks._contract import Data, Task

    _OptionalFamily = Family | None  # what the recipe's field holds once it is read
else:
    _OptionalFamily = FAMILIES.field(optional=True)

_CHECKED_SAMPLES = 8
#: fields that belong to each way of giving a teacher, besides the one that chooses it
_BELONGS = {
    "family": ("train",),
    "factory": ("weights", "kwargs"),
    "onnx": ("outputs", "output"),
}


@dataclass(frozen=True, slots=True, eq=False)
class Teacher:
    """A fixed model that students learn from.

    Attributes:
        module: The network; None for a black box.
        onnx_path: The black box's file; None for a network.
        sha256: Over its architecture and weights, or over the file and how it is read.
        description: One line for the report.
    """

    module: nn.Module | None = field(repr=False)
    onnx_path: Path | None
    sha256: str
    description: str
    _forward: Callable[[Tensor], Tensor] = field(repr=False)

    @classmethod
    def from_module(cls, module: nn.Module, description: str) -> Teacher:
        """A network as a teacher, in eval mode from now on."""
        module.eval()

        def forward(inputs: Tensor) -> Tensor:
            outputs = module(inputs)
            if not isinstance(outputs, Tensor):
                raise RecipeError(
                    "The teacher does not return one tensor.",
                    expected="logits of shape (B, classes)",
                    got=type(outputs).__name__,
                    todo="wrap it in a module that returns the logits alone",
                )
            return outputs.float()

        return cls(module, None, _module_sha256(module), description, forward)

    @classmethod
    def from_onnx(
        cls, path: Path, *, probabilities: bool = False, output: str | None = None
    ) -> Teacher:
        """An ONNX file as a black box, run by ONNX Runtime.

        Args:
            path: The file.
            probabilities: Its outputs are probabilities, not logits.
            output: Which output, where there are several.

        Raises:
            DataError: The file is missing, damaged or points outside its folder.
            RecipeError: It has more inputs than one, or several outputs and none is named.
        """
        outputs = OnnxOutputs(path, probabilities=probabilities, output=output)
        return cls(None, path, outputs.sha256(), f"ONNX file {path.name}", outputs.logits)

    def logits(self, inputs: Tensor) -> Tensor:
        """(B, *input_shape) float32 -> (B, classes) float32; eval mode, no gradient."""
        self._settle()
        with torch.no_grad():
            return self._forward(inputs)

    def taps(self, inputs: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        """Inner activations by layer path, each (B, …); `LOGITS` names the output.

        Raises:
            RecipeError: There is no such layer, or it does not give one tensor.
            UnsupportedError: The teacher is a black box and more than `LOGITS` is asked for.
        """
        paths = [name for name in names if name != LOGITS]
        if not paths:
            return {name: self.logits(inputs) for name in names}
        if self.module is None:
            raise UnsupportedError(
                f"The teacher is {self.description}, of which only the outputs are known.",
                expected="objectives that read the teacher's logits",
                got=f"one that reads {', '.join(map(repr, paths))}",
                todo="use logits_kl, or give the teacher as factory: and weights:",
            )
        with Taps(self.module, paths, owner="teacher") as taps:
            logits = self.logits(inputs)
            found = {name: tensor.float() for name, tensor in taps.collect().items()}
        return {name: logits if name == LOGITS else found[name] for name in names}

    def _settle(self) -> None:
        """Back to eval mode, if someone who shares the module changed it."""
        if self.module is not None and self.module.training:
            self.module.eval()


class TeacherSection(Config):
    """The model to learn from, given in one of three ways.

    Attributes:
        family: A student family as it stands under `student`; it is trained here.
        train: How it is trained.
        factory: ``module:attribute`` that returns a torch module; the module is searched in the
            recipe's folder first.
        kwargs: Keyword arguments of that call.
        weights: Its weights: .safetensors, or a .pt file that holds only tensors.
        onnx: An ONNX file, used as a black box: only its outputs are known.
        outputs: Whether those are logits (the default) or probabilities.
        output: Which output of the file, where it has several.
    """

    family: _OptionalFamily = None
    train: TrainSettings | None = None
    factory: str | None = None
    kwargs: dict[str, Any] = {}
    weights: str | None = None
    onnx: str | None = None
    outputs: Literal["logits", "probabilities"] | None = None
    output: str | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        given = [way for way in _BELONGS if getattr(self, way) is not None]
        if len(given) != 1:
            got = " and ".join(f"`{way}`" for way in given) or "none of them"
            raise ValueError(
                f"give exactly one of `family`, `factory` (with `weights`) and `onnx`, got {got}"
            )
        for way, names in _BELONGS.items():
            strange = [n for n in names if getattr(self, n) and way != given[0]]
            if strange:
                raise ValueError(
                    f"`{strange[0]}` belongs to `{way}` and means nothing with `{given[0]}`"
                )
        if self.factory is not None and self.weights is None:
            raise ValueError(
                "`factory` needs `weights`: a .safetensors file, or a .pt file of tensors"
            )
        return self

    def load(self, folder: Path, spec: NetSpec, *, weights: Path | None = None) -> Teacher:
        """The teacher, ready to be asked.

        Args:
            folder: Where relative paths start.
            spec: What a family is built for.
            weights: Of a trained family; the other two ways bring their own.

        Raises:
            RecipeError: The factory cannot be called or makes no torch module.
            DataError: Weights or ONNX file are not usable.
        """
        if self.onnx is not None:
            return Teacher.from_onnx(
                folder / self.onnx,
                probabilities=self.outputs == "probabilities",
                output=self.output,
            )
        if self.factory is not None and self.weights is not None:
            module, path = self._make(folder), folder / self.weights
            title = f"{self.factory} with {path.name}"
        elif self.family is not None and weights is not None:
            module, path = self.family.build(spec), weights
            title = f"{FAMILIES.spec_of(self.family)['name']} trained here"
        else:
            raise ValueError("a teacher of a family is loaded with the weights it was trained to")
        fill(module, load_weights(path), source=str(path))
        return Teacher.from_module(module, title)

    def _make(self, folder: Path) -> nn.Module:
        module = call_attribute(
            str(self.factory), self.kwargs, folder, what="teacher", field="teacher.factory"
        )
        if not isinstance(module, nn.Module):
            raise RecipeError(
                f"teacher.factory: {self.factory!r} does not make a torch module.",
                expected="a torch.nn.Module",
                got=type(module).__name__,
            )
        return module


def check_teacher(teacher: Teacher, data: Data, task: Task) -> None:
    """Ask the teacher about a few real samples before anything depends on it.

    Raises:
        RecipeError: It cannot take the data's inputs, or has another number of classes.
        DataError: Its outputs are not finite.
    """
    count = min(_CHECKED_SAMPLES, len(data.train))
    inputs = torch.from_numpy(data.train.batch(np.arange(count)))
    try:
        logits = teacher.logits(inputs)
    except EdgekdError:
        raise
    except Exception as e:
        # a foreign network fails on a wrong shape in whatever way its layers do
        raise RecipeError(
            f"The teacher ({teacher.description}) cannot take the data's inputs.",
            expected=f"a model for inputs of shape {data.input_shape}",
            got=describe(e),
            todo="change the data's layout, colour or size, or take another teacher",
        ) from e
    width = task.output_width(data)
    if tuple(logits.shape) != (count, width):
        classes = logits.shape[1] if logits.ndim == 2 else None
        raise RecipeError(
            "The teacher's classes differ from the data's."
            if classes is not None
            else "The teacher does not give one row of logits per sample.",
            expected=f"{width} outputs, one per class of the data",
            got=f"{classes} outputs"
            if classes is not None
            else f"shape {tuple(logits.shape)} for {count} samples",
            todo="use a teacher that was trained on these classes",
        )
    if not logits.isfinite().all():
        raise DataError(
            "The teacher gives NaN or infinity on real samples.",
            expected="finite logits",
            got=f"{int((~logits.isfinite()).any(dim=1).sum())} of {count} samples are not finite",
            todo="check its weights and how its inputs are scaled",
        )


def _module_sha256(module: nn.Module) -> str:
    """Over the printed architecture and every tensor of the state, by name."""
    h = hashlib.sha256(repr(module).encode())
    for name, value in sorted(module.state_dict().items()):
        if isinstance(value, Tensor):
            h.update(f"|{name}|{value.dtype}|{tuple(value.shape)}|".encode())
            raw = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            h.update(raw.numpy().data)
        else:  # what a module keeps through get_extra_state
            h.update(f"|{name}|{value!r}|".encode())
    return h.hexdigest()
