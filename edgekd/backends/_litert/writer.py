"""Writes a .tflite file: tensors, operators and constants of one graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

IDENTIFIER = b"TFL3"
_SCHEMA_VERSION = 3
#: the schema asks for it; processors without unaligned loads need it
_ALIGNMENT = 16
_TYPES = {
    np.dtype(name): getattr(schema.TensorType, name.upper())
    for name in ("float32", "int8", "int32", "int64", "bool")
}
_INT8 = np.dtype(np.int8)
#: first version of an operator that computes on int8 codes, where it is not 2
_INT8_VERSIONS = {"CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 12, "RESHAPE": 1}
#: of a matrix product with a float result that finds the range of its input by itself
_DYNAMIC_VERSION = 12


@dataclass(frozen=True, slots=True)
class Grid:
    """An int8 grid: ``real = (code - zero_point) * scale``."""

    scale: float
    zero_point: int


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of the file.

    Attributes:
        index: In the file.
        shape: As the runtime sees it.
        dtype: Of its elements.
        grid: Of int8 activations.
    """

    index: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    grid: Grid | None = None


class Writer:
    """Collects a graph in the order in which it runs."""

    def __init__(self) -> None:
        self._graph = schema.SubGraphT(tensors=[], inputs=[], outputs=[], operators=[], name=b"")
        self._codes: dict[tuple[int, int], int] = {}
        self._buffers = [_Buffer(b"")]  # the first one is empty by convention

    def tensor(
        self,
        name: str,
        shape: Sequence[int],
        dtype: np.dtype[Any] | type = np.float32,
        grid: Grid | None = None,
    ) -> Tensor:
        """A tensor that an operator makes, or an input."""
        quantization = None if grid is None else _scales([grid.scale], [grid.zero_point], 0)
        return self._add(name, shape, np.dtype(dtype), 0, quantization, grid)

    def constant(
        self,
        name: str,
        value: NDArray[Any],
        scale: NDArray[np.float32] | None = None,
        axis: int = 0,
        grid: Grid | None = None,
    ) -> Tensor:
        """A constant: float, codes on a grid, or codes around 0 with scales along an axis."""
        self._buffers.append(_Buffer(np.ascontiguousarray(value).tobytes()))
        quantization = None
        if grid is not None:
            quantization = _scales([grid.scale], [grid.zero_point], 0)
        elif scale is not None:
            quantization = _scales(scale.reshape(-1).tolist(), [0] * scale.size, axis)
        place = len(self._buffers) - 1
        return self._add(name, value.shape, value.dtype, place, quantization, grid)

    def int4_constant(
        self, name: str, codes: NDArray[np.int8], scale: NDArray[np.float32]
    ) -> Tensor:
        """As `constant`, for an even number of codes from -8 to 7: two of them a byte."""
        nibbles = codes.reshape(-1).view(np.uint8) & 15
        self._buffers.append(_Buffer((nibbles[::2] | nibbles[1::2] << 4).tobytes()))
        scales = _scales(scale.reshape(-1).tolist(), [0] * scale.size, 0)
        place = len(self._buffers) - 1
        tensor = self._add(name, codes.shape, codes.dtype, place, scales, None)
        self._graph.tensors[tensor.index].type = schema.TensorType.INT4
        return tensor

    def operator(
        self,
        op: str,
        inputs: Sequence[Tensor],
        output: Tensor,
        options: str = "",
        **settings: Any,
    ) -> Tensor:
        """An operator that makes `output`, which is returned.

        Args:
            op: As ``BuiltinOperator`` of the schema names it.
            inputs: In order.
            output: What it makes.
            options: Name of its options in the schema; "" where it has none.
            settings: Fields of the options.
        """
        chosen = getattr(schema, f"{options}T")(**settings) if options else None
        self._graph.operators.append(
            schema.OperatorT(
                opcodeIndex=self._code(op, inputs, output),
                inputs=[t.index for t in inputs],
                outputs=[output.index],
                builtinOptionsType=getattr(schema.BuiltinOptions, options) if options else 0,
                builtinOptions=chosen,
            )
        )
        return output

    def rename(self, tensor: Tensor, name: str) -> None:
        """Give a tensor another name."""
        self._graph.tensors[tensor.index].name = name.encode()

    def finish(
        self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], notes: Mapping[str, bytes]
    ) -> bytes:
        """The whole file, with notes kept under their names."""
        self._graph.inputs = [t.index for t in inputs]
        self._graph.outputs = [t.index for t in outputs]
        metadata = []
        for name, text in notes.items():
            self._buffers.append(_Buffer(text))
            metadata.append(schema.MetadataT(name=name.encode(), buffer=len(self._buffers) - 1))
        model = schema.ModelT(
            version=_SCHEMA_VERSION,
            operatorCodes=[
                # old readers look at the deprecated field, which ends at 127
                schema.OperatorCodeT(
                    deprecatedBuiltinCode=min(code, 127), builtinCode=code, version=version
                )
                for code, version in self._codes
            ],
            subgraphs=[self._graph],
            buffers=self._buffers,
            metadata=metadata,
            description=b"edgekd",
        )
        builder = flatbuffers.Builder(1 << 16)
        builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
        return bytes(builder.Output())

    def _code(self, op: str, inputs: Sequence[Tensor], output: Tensor) -> int:
        version = 1
        if inputs[0].dtype == _INT8:
            version = _INT8_VERSIONS.get(op, 1 if op == "QUANTIZE" else 2)
            if op == "QUANTIZE" and output.dtype == _INT8:
                version = 2  # from one grid to another
        elif len(inputs) > 1 and inputs[1].dtype == _INT8:
            version = _DYNAMIC_VERSION
        key = (getattr(schema.BuiltinOperator, op), version)
        return self._codes.setdefault(key, len(self._codes))

    def _add(
        self,
        name: str,
        shape: Sequence[int],
        dtype: np.dtype[Any],
        buffer: int,
        quantization: Any,
        grid: Grid | None,
    ) -> Tensor:
        self._graph.tensors.append(
            schema.TensorT(
                shape=list(shape),
                type=_TYPES[dtype],
                buffer=buffer,
                name=name.encode(),
                quantization=quantization,
                hasRank=True,
            )
        )
        return Tensor(len(self._graph.tensors) - 1, tuple(shape), dtype, grid)


class _Buffer(schema.BufferT):  # type: ignore[misc]  # the generated schema carries no hints
    """Constants at an aligned address, which the generated code does not see to."""

    def __init__(self, content: bytes) -> None:
        super().__init__(data=content)

    def Pack(self, builder: Any) -> Any:  # noqa: N802  # as the generated code calls it
        if not self.data:
            schema.BufferStart(builder)
            return schema.BufferEnd(builder)
        builder.StartVector(1, len(self.data), _ALIGNMENT)
        builder.head -= len(self.data)
        builder.Bytes[builder.head : builder.head + len(self.data)] = self.data
        data = builder.EndVector()
        schema.BufferStart(builder)
        schema.BufferAddData(builder, data)
        return schema.BufferEnd(builder)


def _scales(scale: list[float], zero_point: list[int], axis: int) -> Any:
    return schema.QuantizationParametersT(
        scale=scale, zeroPoint=zero_point, quantizedDimension=axis
    )
