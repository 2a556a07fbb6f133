"""One-layer ONNX models that show whether a runtime has a kernel for an operator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from edgekd.core.types import Scheme

Granularity = Literal["per_tensor", "per_channel", "per_block"]

#: per_block cases are weights alone, in int4; opset 21 is the first that has both
INT4_OPSET = 21
_IR_VERSION = 10
_BLOCK = 32
_FLOAT_OPSET = 20
_CHANNELS, _SIDE = 32, 8
_IMAGE = (1, _CHANNELS, _SIDE, _SIDE)
_ROW = (1, 64)
_SCALE = np.float32(6 / 255)
#: any weight scale will do: what runs where does not depend on the values
_STEP = np.float32(0.01)


def probe_model(op: str, scheme: Scheme | None, granularity: Granularity | None) -> bytes:
    """A serialized model with input "x" and output "y" around one operator.

    Args:
        op: One of `PROBED`.
        scheme: How integers are stored; None builds the model in float.
        granularity: Of 8-bit weights; "per_block" stores int4 weights in blocks of 32 along the
            input channels and leaves the activations in float. None for an operator without
            weights, and in float.
    """
    return PROBED[op](_Builder(scheme, granularity))


class _Builder:
    """Collects nodes; each method returns the name of the tensor that it makes."""

    def __init__(self, scheme: Scheme | None, granularity: Granularity | None) -> None:
        self._scheme, self._granularity = scheme, granularity
        self._rng = np.random.default_rng(0)
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._blocked = granularity == "per_block"
        self._quantized = scheme is not None and not self._blocked

    def node(self, op: str, inputs: Sequence[str], **attributes: Any) -> str:
        from onnx import helper

        name = f"{op}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(op, list(inputs), [name], name=name, **attributes))
        return name

    def grid(self, tensor: str, *, from_zero: bool = False) -> str:
        """QuantizeLinear and DequantizeLinear behind a tensor, where activations are integers.

        `from_zero`: the tensor is never negative, so unsigned codes start at zero.
        """
        if not self._quantized or self._scheme is None:
            return tensor
        zero = 128 if self._scheme.activations == "uint8" and not from_zero else 0
        codes = np.array(zero, self._scheme.activations)
        pair = [self._constant(np.array(_SCALE)), self._constant(codes)]
        return self.node("DequantizeLinear", [self.node("QuantizeLinear", [tensor, *pair]), *pair])

    def weighted(self, op: str, source: str, shape: tuple[int, ...], **attributes: Any) -> str:
        """A layer with weights of `shape` (O, I, …), and a bias where its weights have 8 bits."""
        weights = self._weights(shape)
        if self._blocked:
            return self.node(op, [source, weights], **attributes)
        return self.node(op, [source, weights, self._bias(shape[0])], **attributes)

    def model(self, output: str, shape: Sequence[int], made: Sequence[int]) -> bytes:
        from onnx import TensorProto, helper

        self._nodes[-1].output[:] = ["y"]
        graph = helper.make_graph(
            self._nodes,
            "probe",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, list(made))],
            self._constants,
        )
        opset = self._scheme.opset if self._scheme else _FLOAT_OPSET
        imports = [helper.make_opsetid("", max(opset, INT4_OPSET) if self._blocked else opset)]
        model = helper.make_model(graph, opset_imports=imports, ir_version=_IR_VERSION)
        serialized: bytes = model.SerializeToString()
        return serialized

    def _weights(self, shape: tuple[int, ...]) -> str:
        if self._blocked:
            return self._int4(shape)
        codes = self._rng.integers(-127, 128, shape)
        if not self._quantized:
            return self._constant((codes * _STEP).astype(np.float32))
        return self._decoded(codes.astype(np.int8), self._scales(shape[0]))

    def _int4(self, shape: tuple[int, ...]) -> str:
        from onnx import TensorProto, helper

        codes = self._rng.integers(-7, 8, shape)
        name = f"constant_{len(self._constants)}"
        self._constants.append(helper.make_tensor(name, TensorProto.INT4, shape, codes.ravel()))
        # a matrix product's weights are (I, O), a convolution's (O, I, …)
        axis = 0 if len(shape) == 2 else 1
        blocks = tuple(n // _BLOCK if i == axis else n for i, n in enumerate(shape))
        scales = self._constant(np.full(blocks, _STEP, np.float32))
        return self.node("DequantizeLinear", [name, scales], axis=axis, block_size=_BLOCK)

    def _bias(self, channels: int) -> str:
        bias = self._rng.integers(-100, 100, channels)
        if not self._quantized or self._scheme is None or self._scheme.bias == "float32":
            return self._constant((bias * _STEP).astype(np.float32))
        return self._decoded(bias.astype(np.int32), self._scales(channels) * _SCALE)

    def _scales(self, channels: int) -> NDArray[np.float32]:
        per_tensor = self._granularity == "per_tensor"
        return np.full(() if per_tensor else (channels,), _STEP, np.float32)

    def _decoded(self, codes: NDArray[np.generic], scales: NDArray[np.float32]) -> str:
        zeros = np.zeros(scales.shape, codes.dtype)
        inputs = [self._constant(a) for a in (codes, scales, zeros)]
        return self.node("DequantizeLinear", inputs, axis=0)

    def _constant(self, value: NDArray[np.generic]) -> str:
        from onnx import numpy_helper

        name = f"constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(value, name))
        return name


def _image(
    make: Callable[[_Builder, str], str], made: Sequence[int]
) -> Callable[[_Builder], bytes]:
    """A model around an operator on images; `made` is the shape that it makes."""

    def build(b: _Builder) -> bytes:
        return b.model(b.grid(make(b, b.grid("x"))), _IMAGE, made)

    return build


def _linear(b: _Builder) -> bytes:
    y = b.weighted("Gemm", b.grid("x"), (_CHANNELS, _ROW[1]), transB=1)
    return b.model(b.grid(y), _ROW, (1, _CHANNELS))


def _two_linears(b: _Builder) -> bytes:
    hidden = b.node("Relu", [b.weighted("Gemm", b.grid("x"), (_CHANNELS, _ROW[1]), transB=1)])
    y = b.weighted("Gemm", b.grid(hidden, from_zero=True), (_CHANNELS, _CHANNELS), transB=1)
    return b.model(b.grid(y), _ROW, (1, _CHANNELS))


def _matmul(b: _Builder) -> bytes:
    return b.model(b.weighted("MatMul", "x", (_ROW[1], _CHANNELS)), _ROW, (1, _CHANNELS))


def _add(b: _Builder, x: str) -> str:
    # two convolutions before it, as in a residual block; alone it would be one with the Q/DQ
    shape = (_CHANNELS, _CHANNELS, 1, 1)
    return b.node("Add", [b.grid(b.weighted("Conv", x, shape)) for _ in range(2)])


#: operator -> what builds its model
PROBED: dict[str, Callable[[_Builder], bytes]] = {
    "conv 3x3": _image(
        lambda b, x: b.weighted("Conv", x, (_CHANNELS, _CHANNELS, 3, 3), pads=[1] * 4), _IMAGE
    ),
    "depthwise conv 3x3": _image(
        lambda b, x: b.weighted("Conv", x, (_CHANNELS, 1, 3, 3), pads=[1] * 4, group=_CHANNELS),
        _IMAGE,
    ),
    "linear": _linear,
    "linear, relu, linear": _two_linears,
    "add": _image(_add, _IMAGE),
    "global average pool": _image(
        lambda b, x: b.node("GlobalAveragePool", [x]), (1, _CHANNELS, 1, 1)
    ),
    "max pool": _image(
        lambda b, x: b.node("MaxPool", [x], kernel_shape=[2, 2], strides=[2, 2]),
        (1, _CHANNELS, _SIDE // 2, _SIDE // 2),
    ),
    "matmul": _matmul,
}
