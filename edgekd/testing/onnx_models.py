"""Tiny ONNX models that show one thing each; pinned so that every runtime reads them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

OPSET, IR_VERSION = 20, 10
INPUT, OUTPUT = "input", "logits"
INPUT_SHAPE = (1, 3, 8, 8)
CLASSES = 5


class GraphBuilder:
    """Collects nodes and weights; every method returns the name of the tensor it makes.

    Args:
        seed: Of the random weights.
        codes: Type of activation codes, "uint8" or "int8".
    """

    def __init__(self, seed: int = 0, codes: str = "uint8") -> None:
        self._rng = np.random.default_rng(seed)
        self._codes = np.dtype(codes)
        self._nodes: list[Any] = []
        self._weights: list[Any] = []

    def node(self, op: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        """Any operator with one output called `name`."""
        self._nodes.append(helper.make_node(op, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, name: str, value: NDArray[np.generic]) -> str:
        """An initializer."""
        self._weights.append(numpy_helper.from_array(value, name))
        return name

    def grid(self, tensor: str, *, scale: float, zero_point: int) -> str:
        """QuantizeLinear and DequantizeLinear behind a tensor."""
        pair = [
            self.constant(f"{tensor}.scale", np.array(scale, np.float32)),
            self.constant(f"{tensor}.zero_point", np.array(zero_point, self._codes)),
        ]
        codes = self.node("QuantizeLinear", [tensor, *pair], f"{tensor}/codes")
        return self.node("DequantizeLinear", [codes, *pair], f"{tensor}/real")

    def layer(
        self,
        op: str,
        source: str,
        shape: tuple[int, ...],
        name: str,
        *,
        input_scale: float | None = None,
        integer_bias: bool = True,
        bits: int = 8,
        **attributes: Any,
    ) -> str:
        """A Conv or Gemm with random weights of `shape` (O, …) and a bias.

        Args:
            op: "Conv" or "Gemm".
            source: Its input.
            shape: Of the weights.
            name: Of the node and its output.
            input_scale: Of the grid in front; None leaves the layer in float.
            integer_bias: int32 bias behind a DequantizeLinear.
            bits: Of the weights.
            attributes: Of the node.
        """
        weight = self._rng.normal(0, 0.2, shape).astype(np.float32)
        bias = self._rng.normal(0, 0.1, shape[0]).astype(np.float32)
        if input_scale is None:
            inputs = [self.constant(f"{name}.weight", weight), self.constant(f"{name}.bias", bias)]
            return self.node(op, [source, *inputs], name, **attributes)
        top = (1 << (bits - 1)) - 1
        axes = tuple(range(1, len(shape)))
        scale = (np.abs(weight).max(axis=axes) / top).astype(np.float32)
        codes = np.clip(np.rint(weight / scale.reshape(-1, *[1] * len(axes))), -top, top)
        weights = self._decoded(f"{name}.code", codes, scale, bits)
        if not integer_bias:
            return self.node(
                op, [source, weights, self.constant(f"{name}.bias", bias)], name, **attributes
            )
        bias_scale = (scale * np.float32(input_scale)).astype(np.float32)
        biases = self._decoded(f"{name}.bias_code", np.rint(bias / bias_scale), bias_scale, 32)
        return self.node(op, [source, weights, biases], name, **attributes)

    def model(
        self,
        output: str,
        *,
        input_shape: Sequence[int | str] = INPUT_SHAPE,
        output_shape: Sequence[int | str] | None = (1, CLASSES),
        opset: int = OPSET,
    ) -> bytes:
        """The serialized model; its output is renamed to "logits"."""
        for node in self._nodes:
            node.output[:] = [OUTPUT if o == output else o for o in node.output]
            node.input[:] = [OUTPUT if i == output else i for i in node.input]
        graph = helper.make_graph(
            self._nodes,
            "tiny",
            [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, list(input_shape))],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, output_shape)],
            self._weights,
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=IR_VERSION
        )
        onnx.checker.check_model(model)
        data: bytes = model.SerializeToString(deterministic=True)
        return data

    def _decoded(
        self, name: str, codes: NDArray[np.generic], scale: NDArray[np.float32], bits: int
    ) -> str:
        whole = codes.astype(np.int32)
        self.constant(f"{name}.scale", scale)
        inputs = [name, f"{name}.scale"]
        if bits == 4:
            int4 = helper.make_tensor(name, TensorProto.INT4, whole.shape, whole.flatten())
            self._weights.append(int4)
        elif bits == 8:
            self.constant(name, whole.astype(np.int8))
            zeros = np.zeros(scale.shape, np.int8)  # ONNX Runtime wants them for a Gemm
            inputs.append(self.constant(f"{name}.zero_point", zeros))
        else:
            self.constant(name, whole)
        return self.node("DequantizeLinear", inputs, f"{name}/real", axis=0)


def convolution_net(
    *,
    quantized: bool,
    seed: int = 0,
    codes: str = "uint8",
    conv_output_grid: bool = True,
    conv_input_grid: bool = True,
    integer_bias: bool = True,
    bits: int = 8,
    flatten_between: bool = False,
    batch: int | str = 1,
) -> bytes:
    """Conv, Relu, global pool, Gemm; float, or on 8-bit grids with switches to spoil them.

    Input "input" (batch, 3, 8, 8), output "logits" (batch, 5).
    """
    b = GraphBuilder(seed, codes)
    zero = 128 if codes == "uint8" else 0
    scale = 6 / 255
    on_grid = quantized and conv_input_grid
    x = b.grid(INPUT, scale=scale, zero_point=zero) if on_grid else INPUT
    x = b.layer(
        "Conv", x, (8, 3, 3, 3), "conv", input_scale=scale if quantized else None,
        integer_bias=integer_bias, bits=bits, pads=[1, 1, 1, 1],
    )  # fmt: skip
    x = b.node("Relu", [x], "relu")
    if quantized and conv_output_grid:
        x = b.grid(x, scale=4 / 255, zero_point=0)
    x = b.node("GlobalAveragePool", [x], "pool")
    if quantized:
        x = b.grid(x, scale=2 / 255, zero_point=0)
    x = b.node("Flatten", [x], "flat")
    if quantized and not flatten_between:
        x = b.grid(x, scale=2 / 255, zero_point=0)
    x = b.layer(
        "Gemm", x, (CLASSES, 8), "fc", input_scale=2 / 255 if quantized else None,
        integer_bias=integer_bias, transB=1,
    )  # fmt: skip
    return b.model(
        x,
        input_shape=(batch, *INPUT_SHAPE[1:]),
        output_shape=(batch, CLASSES),
        opset=OPSET if bits == 8 else 21,
    )


def sandwich_net(op: str) -> bytes:
    """Two int8 convolutions with a unary operator on grids of its own in between."""
    b = GraphBuilder()
    x = b.grid(INPUT, scale=6 / 255, zero_point=128)
    x = b.layer("Conv", x, (8, 3, 3, 3), "first", input_scale=6 / 255, pads=[1, 1, 1, 1])
    x = b.grid(x, scale=4 / 255, zero_point=128)
    x = b.node(op, [x], "between")
    x = b.grid(x, scale=2 / 255, zero_point=128)
    x = b.layer("Conv", x, (CLASSES, 8, 8, 8), "second", input_scale=2 / 255)
    x = b.grid(x, scale=4 / 255, zero_point=128)
    return b.model(b.node("Flatten", [x], "flat"))


def with_external_data(model: bytes, path: Path, *, location: str) -> Path:
    """Write the model at `path` with its first large weight moved to `location` beside it.

    The model is written even where `location` leads outside; nothing is written there.
    """
    proto = onnx.load_from_string(model)
    weight = max(proto.graph.initializer, key=lambda i: len(i.raw_data))
    data, weight.raw_data = weight.raw_data, b""
    weight.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(len(data)))):
        weight.external_data.add(key=key, value=value)
    if location and Path(location).name == location:
        (path.parent / location).write_bytes(data)
    path.write_bytes(proto.SerializeToString())
    return path
