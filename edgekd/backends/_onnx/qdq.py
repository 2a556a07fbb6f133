"""Why a convolution or matrix product is not in int8, read off the Q/DQ pattern in the file."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

#: convolutions and matrix products as the ONNX standard and ONNX Runtime call them
FLOAT_MATMULS = frozenset({
    "Attention", "Conv", "ConvTranspose", "DeformConv", "Einsum", "FusedConv", "FusedGemm",
    "FusedMatMul", "GRU", "Gemm", "GemmFastGelu", "GroupQueryAttention", "LSTM", "MatMul",
    "MultiHeadAttention", "NhwcFusedConv", "RNN", "TransposeMatMul",
})  # fmt: skip
INT8_MATMULS = frozenset({
    "ConvInteger", "DynamicQuantizeLSTM", "DynamicQuantizeMatMul", "MatMulInteger",
    "MatMulIntegerToFloat", "QAttention", "QGemm", "QLinearConv", "QLinearConvTranspose",
    "QLinearMatMul",
})  # fmt: skip
LOW_BIT_MATMULS = frozenset({"MatMulBnb4", "MatMulNBits"})
MATMULS = FLOAT_MATMULS | INT8_MATMULS | LOW_BIT_MATMULS
#: operators that move values without computing anything
LAYOUT_OPS = frozenset({
    "Flatten", "Identity", "ReorderInput", "ReorderOutput", "Reshape", "Squeeze", "Transpose",
    "Unsqueeze",
})  # fmt: skip
_ACTIVATIONS = frozenset({
    "Clip", "HardSigmoid", "HardSwish", "LeakyRelu", "Relu", "Sigmoid", "Tanh",
})  # fmt: skip
_PLAIN = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_NEED_QUANTIZED_OUTPUT = frozenset({"Conv", "ConvTranspose"})
QDQ = frozenset({"DequantizeLinear", "QuantizeLinear"})
FLOAT_WEIGHTS = "weights are float"
FLOAT_SECOND = "its second input is not quantized"
#: what runtimes add to a node's name when they rewrite it
_ADDED = re.compile(
    r"(_token_\d+|_nchwc|_nhwc|/MatMulAddFusion|/WithoutBiases|/DequantizationMultiply)$"
)
_FARTHEST = 16


class FileGraph:
    """The graph of an ONNX file as it was written.

    Args:
        model: An ``onnx.ModelProto``; external data need not be loaded.
    """

    def __init__(self, model: Any) -> None:
        self._nodes: dict[str, Any] = {}
        self._makers: dict[str, Any] = {}
        self._users: dict[str, list[Any]] = {}
        self._constants: dict[str, int] = {}  # name -> ONNX element type
        for graph in _graphs(model.graph):
            self._constants.update({i.name: i.data_type for i in graph.initializer})
            for node in graph.node:
                if node.name:
                    self._nodes.setdefault(node.name, node)
                self._makers.update(dict.fromkeys(node.output, node))
                for name in node.input:
                    self._users.setdefault(name, []).append(node)
                if node.op_type == "Constant" and node.attribute:
                    self._constants[node.output[0]] = node.attribute[0].t.data_type

    def origin(self, name: str) -> Any | None:
        """The convolution or matrix product that a runtime's node of this name came from.

        Runtimes name a fused node after itself, after a node it swallowed, or after its output,
        and add a suffix of their own.
        """
        while name not in self._nodes and name not in self._makers:
            shorter = _ADDED.sub("", name)
            if shorter == name:
                return None
            name = shorter
        node = self._nodes.get(name) or self._makers[name]
        for _ in range(_FARTHEST):  # a swallowed activation or batch norm comes after it
            if node is None or node.op_type in MATMULS:
                return node
            node = self._makers.get(node.input[0]) if node.input else None
        return None

    def title(self, name: str, also: Iterable[str] = ()) -> tuple[str, Any | None]:
        """A runtime's name with the file's own in brackets where it differs, and the origin.

        Args:
            name: Of the runtime's node.
            also: Names of nodes it swallowed and of tensors it makes, tried in this order.
        """
        origin = next((o for o in map(self.origin, (name, *also)) if o is not None), None)
        if origin is None or origin.name in name:
            return name, origin
        return f"{name} [{origin.name}]", origin

    def only_qdq(self, names: Iterable[str]) -> bool:
        """Whether the file's nodes among `names` only quantize or dequantize."""
        nodes = [self._nodes.get(name) or self._makers.get(name) for name in names]
        ops = {node.op_type for node in nodes if node is not None}
        return bool(ops) and ops <= QDQ

    def is_matmul(self, name: str) -> bool:
        """Whether a node of this name is a convolution or matrix product."""
        node = self._nodes.get(name)
        return node is not None and str(node.op_type) in MATMULS

    def why_float(self, node: Any, *, strict: bool) -> str:
        """What keeps a node of the file out of int8 kernels; "" when nothing visible does.

        Args:
            node: From `origin`.
            strict: The runtime matches the Q/DQ pattern to the letter, as ONNX Runtime does: the
                DequantizeLinear stands right before, the bias is int32, and a QuantizeLinear
                follows a convolution.
        """
        if node.op_type in LOW_BIT_MATMULS:
            return "weights are stored in fewer bits and computed in float"
        if node.op_type not in _PLAIN:
            return f"{node.op_type} is not quantized"
        values, weights = node.input[0], node.input[1]
        decoded = self._dequantized(values)
        wrong_weights = self._weights(weights)
        if decoded is None and wrong_weights == FLOAT_WEIGHTS:
            return "input and weights are float"
        if decoded is None and wrong_weights == FLOAT_SECOND:
            return "its inputs are not quantized"
        if wrong_weights:
            return wrong_weights
        if decoded is None:
            return "its input is not quantized"
        return self._strictly(node, decoded) if strict else ""

    def _strictly(self, node: Any, decoded: Any) -> str:
        between = self._makers[node.input[0]]
        if between is not decoded:
            return f"a {between.op_type} stands between it and its DequantizeLinear"
        wrong_output = self._output(node) if node.op_type in _NEED_QUANTIZED_OUTPUT else ""
        if wrong_output:
            return wrong_output
        if node.op_type == "Gemm" and len(self._dequantized(node.input[1]).input) < 3:
            return "its weights carry no zero point"
        bias = node.input[2] if len(node.input) > 2 else ""
        return "bias is float" if bias and self._dequantized(bias) is None else ""

    def _dequantized(self, name: str) -> Any:
        """The DequantizeLinear behind a tensor or behind layout changes of it; None without."""
        maker = self._makers.get(name)
        while maker is not None and maker.op_type in LAYOUT_OPS:
            maker = self._makers.get(maker.input[0])
        return maker if maker is not None and maker.op_type == "DequantizeLinear" else None

    def _weights(self, name: str) -> str:
        dequantize = self._dequantized(name)
        if dequantize is None:
            return FLOAT_WEIGHTS if self._constant(name) else FLOAT_SECOND
        bits = _bits(self._constants.get(dequantize.input[0]))
        return f"weights are int{bits}: storage only" if bits < 8 else ""

    def _constant(self, name: str) -> bool:
        maker = self._makers.get(name)
        while maker is not None and maker.op_type in LAYOUT_OPS | {"Cast"}:
            name = maker.input[0]
            maker = self._makers.get(name)
        return name in self._constants

    def _output(self, node: Any) -> str:
        users = self._users.get(node.output[0], [])
        passed = None
        while len(users) == 1 and users[0].op_type in _ACTIVATIONS:
            passed = users[0]
            users = self._users.get(passed.output[0], [])
        if not any(u.op_type == "QuantizeLinear" for u in users):
            return "no QuantizeLinear on its output"
        others = sorted({u.op_type for u in users if u.op_type != "QuantizeLinear"})
        if others:
            return f"its output is also used in float by {', '.join(others)}"
        if passed is not None:
            return f"its {passed.op_type} is not absorbed by the zero point behind it"
        return ""


def file_name(title: str) -> str:
    """The name in the file, as far as a title from `FileGraph.title` shows it.

    >>> file_name("ops_7 [features.0]"), file_name("fc/MatMulAddFusion"), file_name("fc")
    ('features.0', 'fc', 'fc')
    """
    name = title.rpartition(" [")[2].removesuffix("]") if title.endswith("]") else title
    while (shorter := _ADDED.sub("", name)) != name:
        name = shorter
    return name


def _graphs(graph: Any) -> Iterator[Any]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g)
            for inner in attribute.graphs:
                yield from _graphs(inner)


def _bits(element_type: int | None) -> int:
    """Bits of an ONNX element type, as far as weights are stored in it; 8 when unknown."""
    import onnx

    name = onnx.TensorProto.DataType.Name(element_type) if element_type else ""
    digits = re.fullmatch(r"U?INT(\d+)", name)
    return int(digits.group(1)) if digits else 8
