"""One node of an ONNX file, what it reads, and what is made of it for LiteRT."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import helper

from edgekd.backends._litert.values import Value
from edgekd.backends._litert.writer import Grid
from edgekd.backends._onnx.constants import real
from edgekd.backends._onnx.weights import Weights
from edgekd.core.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import onnx
    from numpy.typing import NDArray

    from edgekd.backends._litert.writer import Tensor, Writer
    from edgekd.backends._onnx.constants import Constants

RUNTIME = "LiteRT"
#: an unsigned code and its zero point, both this much lower, are the same value in int8
_UNSIGNED = 128
_MOVES = frozenset({"Flatten", "Identity", "Reshape", "Transpose"})
#: activations that are a part of the kernel in front, by their bounds
_FUSED = {(0.0, None): "RELU", (0.0, 6.0): "RELU6"}


@dataclass(frozen=True, slots=True)
class Ahead:
    """What follows a node.

    Attributes:
        activation: "NONE", or the one that becomes a part of its kernel.
        name: Of the tensor behind that activation.
        grid: Which that tensor is put on before anything else reads it.
    """

    activation: str
    name: str
    grid: Grid | None


class Source:
    """The file: its nodes, its constants and who reads what."""

    def __init__(self, model: onnx.ModelProto, path: Path, found: Constants) -> None:
        self.path, self.constants = path, found
        self._users: dict[str, list[onnx.NodeProto]] = {}
        self._outputs = {o.name for o in model.graph.output}
        for node in model.graph.node:
            for name in dict.fromkeys(node.input):
                self._users.setdefault(name, []).append(node)

    def ahead(self, name: str, *, fuse: bool) -> Ahead:
        """What follows the tensor `name`; with `fuse`, behind an activation."""
        activation = "NONE"
        after = self._only_user(name)
        if fuse and after is not None and after.op_type in ("Clip", "Relu"):
            bounds = self.bounds(after)
            if bounds in _FUSED:
                activation, name = _FUSED[bounds], after.output[0]
        return Ahead(activation, name, self._grid_behind(name))

    def bounds(self, node: onnx.NodeProto) -> tuple[float | None, float | None] | None:
        """Lower and upper bound of a Relu or Clip; None where they are computed."""
        if node.op_type == "Relu":
            return 0.0, None
        given = dict(zip(("min", "max"), node.input[1:], strict=False))
        read = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if any(name and name not in self.constants for name in given.values()):
            return None
        read.update((k, real(self.constants[name])) for k, name in given.items() if name)
        low, high = (None if k not in read else float(read[k]) for k in ("min", "max"))
        return low, high

    def grid(self, node: onnx.NodeProto) -> Grid | None:
        """Of a QuantizeLinear or DequantizeLinear, in int8; None where it is no such grid."""
        found = [self.constants.get(name) for name in node.input[1:] if name]
        values = [real(value) for value in found if value is not None]
        if not values or len(values) < len(found) or any(value.size != 1 for value in values):
            return None
        zero = values[1] if len(values) > 1 else np.zeros((), np.uint8)
        if zero.dtype not in (np.int8, np.uint8):
            return None
        shift = _UNSIGNED if zero.dtype == np.uint8 else 0
        return Grid(float(values[0].reshape(())), int(zero.reshape(())) - shift)

    def _only_user(self, name: str) -> onnx.NodeProto | None:
        users = self._users.get(name, [])
        return users[0] if len(users) == 1 and name not in self._outputs else None

    def _grid_behind(self, name: str) -> Grid | None:
        """A grid may stand behind a Reshape or its kin, which move codes as well as values."""
        after = self._only_user(name)
        while after is not None and after.op_type in _MOVES:
            after = self._only_user(after.output[0])
        return (
            self.grid(after) if after is not None and after.op_type == "QuantizeLinear" else None
        )


class Call:
    """One node with the values it reads.

    Args:
        node: Of the file.
        source: The file.
        values: Every tensor made so far, by name.
        writer: What it is written with.
    """

    def __init__(
        self, node: onnx.NodeProto, source: Source, values: dict[str, Value], writer: Writer
    ) -> None:
        self.node, self.source, self.writer = node, source, writer
        self.values = values
        self.name = node.name or node.output[0]
        found = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        self.attributes: dict[str, Any] = {
            name: v.decode() if isinstance(v, bytes) else v for name, v in found.items()
        }

    def value(self, index: int) -> Value:
        """An input that is computed."""
        name = self.node.input[index]
        if name not in self.values:
            raise self.refused("a computed tensor", f"the constant {name!r}")
        return self.values[name]

    def has(self, index: int) -> bool:
        """Whether an optional input is given."""
        return index < len(self.node.input) and bool(self.node.input[index])

    def is_constant(self, index: int) -> bool:
        """Whether an input is known when the file is built."""
        return self.node.input[index] in self.source.constants

    def weights(self, index: int) -> NDArray[Any] | Weights:
        """A constant input, as codes where it comes as codes."""
        name = self.node.input[index]
        if name not in self.source.constants:
            raise self.refused(f"a constant as input {index}", f"the computed {name!r}")
        return self.source.constants[name]

    def constant(self, index: int, attribute: str = "") -> NDArray[Any] | None:
        """A constant input, or the attribute that older opsets have instead; None where absent."""
        if attribute in self.attributes:
            return np.asarray(self.attributes[attribute])
        return self.fixed(index) if self.has(index) else None

    def fixed(self, index: int) -> NDArray[Any]:
        """A constant input, decoded where it comes as codes."""
        return real(self.weights(index))

    def ahead(self, *, fuse: bool = True) -> Ahead:
        """What follows this node."""
        return self.source.ahead(self.node.output[0], fuse=fuse)

    def made(
        self,
        op: str,
        inputs: Sequence[Tensor],
        shape: Sequence[int],
        options: str = "",
        *,
        name: str = "",
        grid: Grid | None = None,
        last: bool = False,
        settings: Mapping[str, Any] | None = None,
    ) -> Value:
        """A Value made by an operator of LiteRT.

        Args:
            op: See `Writer.operator`.
            inputs: In order.
            shape: Of the result as in the ONNX file.
            options: See `Writer.operator`.
            name: Of the result; the node's own output where empty.
            grid: That an integer kernel puts the result on.
            last: Whether the channels of a 4-d result come last.
            settings: See `Writer.operator`.
        """
        name = name or self.node.output[0]
        stored = tuple(shape[i] for i in (0, 2, 3, 1)) if last else tuple(shape)
        out = self.writer.tensor(name, stored, np.float32 if grid is None else np.int8, grid)
        self.writer.operator(op, inputs, out, options, **(settings or {}))
        return Value(self.writer, name, tuple(shape), out, last=last)

    def require(self, **attributes: Any) -> None:
        """Raise unless every attribute is absent or has this value."""
        for name, wanted in attributes.items():
            if self.attributes.get(name, wanted) != wanted:
                raise self.refused(f"{name} {wanted}", f"{name} {self.attributes[name]}")

    def refused(self, expected: str, got: str) -> UnsupportedError:
        """The error for a node that is not one of those known."""
        return UnsupportedError(
            f"edgekd cannot bring the {self.node.op_type} {self.name!r} of {self.source.path} "
            f"to {RUNTIME}.",
            expected=expected,
            got=got,
            todo="try another target",
        )
