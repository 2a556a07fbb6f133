"""A tensor of an ONNX file on its way to LiteRT, in whichever forms its readers want."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from edgekd.backends._litert.writer import Grid, Tensor, Writer

TO_LAST, TO_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)


class Value:
    """One tensor, as codes or in float, its channels first as in the file or last.

    Forms that are missing are made when asked for, and then kept.

    Args:
        writer: Of the file.
        shape: In the ONNX file, channels first.
        tensor: One form of it; its grid says whether it holds codes.
        last: Whether the channels of a 4-d `tensor` come last.
    """

    def __init__(
        self, writer: Writer, name: str, shape: tuple[int, ...], tensor: Tensor, *, last: bool
    ) -> None:
        self._writer, self.name, self.shape = writer, name, shape
        self.grid: Grid | None = tensor.grid
        self._forms = {(tensor.grid is not None, last): tensor}

    @property
    def images(self) -> bool:
        """Whether it has two spatial axes."""
        return len(self.shape) == 4

    @property
    def is_last(self) -> bool:
        """Whether a form with its channels last is there already."""
        return any(last for _, last in self._forms)

    def tensor(self, *, codes: bool, last: bool = False) -> Tensor:
        """One of its forms; codes only where it has a grid."""
        key = (codes, last)
        if key not in self._forms:
            other = self._forms.get((codes, not last))
            self._forms[key] = self._decoded(last) if other is None else self._turned(other, last)
        return self._forms[key]

    def natural(self, *, codes: bool) -> tuple[Tensor, bool]:
        """The form that costs least, and whether its channels come last."""
        return self.tensor(codes=codes, last=self.is_last), self.is_last

    def quantized(self, name: str, grid: Grid) -> Value:
        """On another grid."""
        if self.grid == grid:
            return self
        source, last = self.natural(codes=self.grid is not None)
        codes = self._writer.tensor(name, source.shape, np.int8, grid)
        self._writer.operator("QUANTIZE", [source], codes, "QuantizeOptions")
        return Value(self._writer, name, self.shape, codes, last=last)

    def moved(self, name: str, shape: tuple[int, ...]) -> Value:
        """The same elements in the order of the ONNX file under another shape."""
        codes = self.grid is not None
        last = self.images and set(self.shape[2:]) == {1} and self.is_last
        source = self.tensor(codes=codes, last=last)
        out = self._writer.tensor(name, shape, source.dtype, source.grid)
        reshaped(self._writer, source, out)
        return Value(self._writer, name, shape, out, last=False)

    def _decoded(self, last: bool) -> Tensor:
        source = self.tensor(codes=True, last=last)
        real = self._writer.tensor(f"{self.name}/real", source.shape)
        return self._writer.operator("DEQUANTIZE", [source], real, "DequantizeOptions")

    def _turned(self, source: Tensor, last: bool) -> Tensor:
        order = TO_LAST if last else TO_FIRST
        shape = tuple(source.shape[i] for i in order)
        name = f"{self.name}/channels_{'last' if last else 'first'}"
        out = self._writer.tensor(name, shape, source.dtype, source.grid)
        if self.shape[1] == 1 or self.shape[2] * self.shape[3] == 1:
            return reshaped(self._writer, source, out)
        axes = self._writer.constant(f"{name}/order", np.array(order, np.int32))
        return self._writer.operator("TRANSPOSE", [source, axes], out, "TransposeOptions")


def reshaped(writer: Writer, source: Tensor, out: Tensor) -> Tensor:
    """The elements of one tensor in another."""
    shape = writer.constant(f"shape/{out.index}", np.array(out.shape, np.int32))
    return writer.operator(
        "RESHAPE", [source, shape], out, "ReshapeOptions", newShape=list(out.shape)
    )
