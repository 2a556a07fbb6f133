"""Writes the integers into an ONNX graph: Q/DQ behind tensors, int8 codes in place of weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgekd.core.types import Affine, PerChannel, PerTensor
from edgekd.numerics.affine import encode
from edgekd.numerics.ranges import least_squares_scale

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from edgekd.core.types import Scheme
    from edgekd.quantize.onnx_graph.graph import Graph
    from edgekd.quantize.onnx_graph.kinds import WeightedLayer
    from edgekd.quantize.onnx_graph.placement import Placement

_INT32_MAX = 2**31 - 1
#: keeps the rounded bias below the largest int32 after float32 arithmetic
_HEADROOM = 1.000001


def write(
    model: Any,
    graph: Graph,
    placement: Placement,
    grids: Mapping[str, Affine],
    scheme: Scheme,
    weight_bits: int,
) -> Any:
    """A copy of the model with integers where `placement` says.

    Args:
        model: Float, after `tidy`; left as it is.
        graph: A view of it.
        placement: Where integers go.
        grids: Encoding of every tensor in `placement.grids` and `placement.operands`.
        scheme: Of the target.
        weight_bits: Of the codes that weights use, stored in 8.
    """
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    writer = _Writer(graph, placement, grids, scheme, weight_bits)
    nodes = writer.nodes(copy.graph.node)
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    read = {name for node in nodes for name in node.input} | {o.name for o in copy.graph.output}
    kept = [i for i in copy.graph.initializer if i.name in read or i.name in graph.inner]
    del copy.graph.initializer[:]
    copy.graph.initializer.extend([*kept, *writer.constants.values()])
    copy.producer_name, copy.producer_version = "edgekd", ""
    return copy


class _Writer:
    def __init__(
        self,
        graph: Graph,
        placement: Placement,
        grids: Mapping[str, Affine],
        scheme: Scheme,
        weight_bits: int,
    ) -> None:
        self.weight_bits = weight_bits
        self.graph, self.placement, self.grids, self.scheme = graph, placement, grids, scheme
        self.constants: dict[str, Any] = {}
        self._real: dict[str, str] = {}  # tensor -> its rounded twin
        self._taken = {*graph.inputs, *graph.constants, *graph.makers, *graph.inner}
        self._root = {**{name: name for name in placement.grids}, **placement.shared}

    def nodes(self, originals: Sequence[Any]) -> list[Any]:
        made: list[Any] = []
        for name in self.graph.inputs:
            made += self._grid(name, name)
        for name in self.placement.operands:
            made += self._operand(name)
        for node in originals:
            made += self._weights(node)
            self._rewire(node)
            made.append(node)
            for index, output in enumerate(node.output):
                if output not in self._root:
                    continue
                source = output
                if output in self.graph.outputs or output in self.graph.inner:
                    # whoever reads it by this name, outside or in a branch, gets rounded values
                    source = node.output[index] = self._new(f"{output}/float")
                made += self._grid(output, source)
        return made

    def _rewire(self, node: Any) -> None:
        """Let a node read rounded values: always of what integers made, else if it is integer."""
        for index, name in enumerate(node.input):
            if name not in self._real:
                continue
            alone = self._root.get(name, name) in self.placement.alone
            if not alone or self._takes_integers(node, index):
                node.input[index] = self._real[name]

    def _takes_integers(self, node: Any, index: int) -> bool:
        if node.name in self.placement.layers:
            return index == 0
        moves = any(output in self.placement.shared for output in node.output)
        return moves or node.name in self.placement.arithmetic

    def _grid(self, name: str, source: str) -> list[Any]:
        """QuantizeLinear and DequantizeLinear behind `source`, under the scale of `name`."""
        root = self._root.get(name)
        if root is None:
            return []
        affine = self.grids[root]
        scale = self._constant(f"{root}/scale", affine.scale)
        zero = self._constant(
            f"{root}/zero_point", affine.zero_point.astype(self.scheme.activations)
        )
        codes = self._new(f"{name}/codes")
        real = name if source != name else self._new(f"{name}/real")
        self._real[name] = real
        return [
            _node("QuantizeLinear", [source, scale, zero], codes),
            _node("DequantizeLinear", [codes, scale, zero], real),
        ]

    def _operand(self, name: str) -> list[Any]:
        """A stored input of integer arithmetic as codes."""
        value = self.graph.value(name)
        assert value is not None
        affine = self.grids[name]
        codes = encode(value.astype(np.float32), affine).astype(self.scheme.activations)
        zero = affine.zero_point.astype(self.scheme.activations)
        inputs = [
            self._constant(f"{name}/codes", codes),
            self._constant(f"{name}/scale", affine.scale),
            self._constant(f"{name}/zero_point", zero),
        ]
        self._real[name] = self._new(f"{name}/real")
        return [_node("DequantizeLinear", inputs, self._real[name])]

    def _weights(self, node: Any) -> list[Any]:
        """Replace the weights of a layer by codes behind a DequantizeLinear, and its bias too."""
        layer = self.placement.layers.get(node.name)
        if layer is None:
            return []
        weight = self.graph.value(layer.weight)
        bias = self.graph.value(layer.bias) if layer.bias else None
        assert weight is not None
        per_channel = self.scheme.weight_granularity == "per_channel"
        input_scale = float(self.grids[self._root[node.input[0]]].scale)
        affine = weight_encoding(
            weight.astype(np.float32),
            layer.axis if per_channel else None,
            None if bias is None else bias.astype(np.float32),
            input_scale,
            bits=self.weight_bits,
        )
        made = [self._decoded(layer, affine, encode(weight.astype(np.float32), affine))]
        node.input[1] = made[0].output[0]
        if bias is not None and self.scheme.bias == "int32":
            made.append(self._bias(layer, bias, affine.scale * np.float32(input_scale)))
            node.input[2] = made[1].output[0]
        return made

    def _decoded(self, layer: WeightedLayer, affine: Affine, codes: NDArray[np.int32]) -> Any:
        name = f"{layer.node.name}/weight"
        inputs = [
            self._constant(self._new(f"{name}/codes"), codes.astype(np.int8)),
            self._constant(self._new(f"{name}/scale"), affine.scale),
            self._constant(self._new(f"{name}/zero_point"), np.zeros(affine.scale.shape, np.int8)),
        ]
        axis = {} if layer.axis is None or affine.scale.ndim == 0 else {"axis": layer.axis}
        return _node("DequantizeLinear", inputs, self._new(f"{name}/real"), **axis)

    def _bias(
        self, layer: WeightedLayer, bias: NDArray[np.generic], step: NDArray[np.float32]
    ) -> Any:
        name = f"{layer.node.name}/bias"
        flat = bias.astype(np.float64).reshape(-1)
        codes = np.clip(np.rint(flat / step), -_INT32_MAX, _INT32_MAX).astype(np.int32)
        inputs = [
            self._constant(self._new(f"{name}/codes"), codes),
            self._constant(self._new(f"{name}/scale"), np.asarray(step, np.float32)),
        ]
        axis = {"axis": 0} if step.ndim else {}
        return _node("DequantizeLinear", inputs, self._new(f"{name}/real"), **axis)

    def _constant(self, name: str, value: NDArray[np.generic]) -> str:
        from onnx import numpy_helper

        self.constants.setdefault(name, numpy_helper.from_array(np.asarray(value), name))
        return name

    def _new(self, wanted: str) -> str:
        name, repeats = wanted, 1
        while name in self._taken:
            repeats += 1
            name = f"{wanted}#{repeats}"
        self._taken.add(name)
        return name


def weight_encoding(
    weight: NDArray[np.float32],
    axis: int | None,
    bias: NDArray[np.float32] | None,
    input_scale: float,
    *,
    bits: int = 8,
) -> Affine:
    """Symmetric integers with the scale of least squared error, wide enough for an int32 bias.

    A bias is stored in steps of ``input_scale * weight scale``. Where a channel's weights are next
    to nothing, as after a batch norm that switched it off, that step would be so small that the
    bias does not fit into 32 bits; its scale is raised until it does, which costs nothing.

    Args:
        weight: (O, I, …) or with the output channels along `axis`.
        axis: Of the output channels; None for one scale.
        bias: (O,).
        input_scale: Of the grid in front.
        bits: Of the codes. Two 7-bit weights times unsigned activations fit into 16 bits, in which
            kernels of CPUs without VNNI add pairs up; two 8-bit ones may not.
    """
    granularity = PerTensor() if axis is None else PerChannel(axis=axis)
    scale = least_squares_scale(weight, granularity, bits=bits)
    if bias is not None:
        largest = np.abs(bias.reshape(-1)) if scale.ndim else np.abs(bias).max(initial=0.0)
        floor = largest.astype(np.float64) * _HEADROOM / (_INT32_MAX * max(input_scale, 1e-30))
        scale = np.maximum(scale, floor).astype(np.float32)
    return Affine(bits, True, granularity, scale, np.zeros(scale.shape, np.int32), narrow=True)


def _node(op: str, inputs: Iterable[str], output: str, **attributes: int) -> Any:
    from onnx import helper

    name = f"{output}/{op}"
    return helper.make_node(op, list(inputs), [output], name=name, **attributes)
