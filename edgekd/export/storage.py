"""How weights of 1 to 8 bits lie in a file: packed bytes, and the nodes that unpack them.

torch writes int8 codes for layers that integer kernels compute, and `WEIGHT` nodes for the others;
`store` then puts packed bytes in their place. Every node that it adds depends on constants alone
and uses operators that runtimes evaluate when they load a file, so that what runs is the same
int8 or float layer as with plain weights. Native weights are the exception: integers of 4 or 2
bits behind one DequantizeLinear, which a runtime may keep.

Division and remainder take the fields of a byte apart: OpenVINO does not evaluate BitShift when
loading, and would then find no int8 weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edgekd.core.types import Affine, PerBlock, PerChannel, PerTensor
from edgekd.numerics import encoding as numeric
from edgekd.numerics.groups import scale_shape
from edgekd.numerics.levels import integer_levels, levels
from edgekd.numerics.packing import field_bits, pack

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from edgekd.core.types import Encoding, Scheme, Widths
    from edgekd.numerics.groups import Floats, Granularity

    #: the number that each code stands for, (levels,)
    Table = NDArray[Any]

Form = Literal["kernel", "storage only"]
#: stands for a weight whose encoding no integer kernel computes, until `store` replaces it
DOMAIN, WEIGHT = "edgekd", "Weight"
#: suffix of the initializer that holds a layer's codes
CODES = ".codes"
#: opset and IR version that brought integers of these bits
NATIVE = {4: (21, 10), 2: (25, 13)}
_BYTE = 8
#: layers of no more weights are unpacked together: there the nodes weigh more than what a runtime
#: needs for a moment to unpack many at once
_SMALL_LAYER = 1 << 17
#: zeros of no more bytes are smaller than the node that makes them
_FEW_ZEROS = 64


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """What a layer's weight is made of.

    Attributes:
        codes: As the encoding has them, in the weight's shape.
        encoding: Of the weight.
        native: As ONNX integers of its width, where it is decoded to float; not packed.
    """

    codes: NDArray[np.int32]
    encoding: Encoding
    native: bool = False

    @staticmethod
    def of(weight: Floats, encoding: Encoding, *, native: bool = False) -> Stored:
        """From the weight as trained."""
        return Stored(numeric.encode(weight, encoding), encoding, native)


def store(proto: Any, weights: Mapping[str, Stored]) -> None:
    """Pack the weights of a model, in place.

    Args:
        proto: An ``onnx.ModelProto`` whose initializer ``<layer>.codes`` stands for each weight.
        weights: By the layer's path.
    """
    graph = proto.graph
    made = _Nodes(graph)
    packed = _packed(graph, weights)
    made.unpack_together(packed)
    unpacked: dict[str, str] = {}  # a layer that is called twice is stored once
    replaced: dict[str, str] = {}
    for node in list(graph.node):
        layer, in_float = _weight_of(node)
        if layer not in packed:
            continue
        if layer not in unpacked:
            _take(graph.initializer, node.input[0])
            make = made.floats if in_float else made.integers
            unpacked[layer] = make(layer, packed[layer][0])
        if in_float:
            replaced[node.output[0]] = unpacked[layer]
            graph.node.remove(node)
        else:
            node.input[0] = unpacked[layer]
            made.derive_zeros(node)
    for node in graph.node:
        node.input[:] = [replaced.get(name, name) for name in node.input]
    made.prepend()
    for domain in [o for o in proto.opset_import if o.domain == DOMAIN]:
        proto.opset_import.remove(domain)


def _weight_of(node: Any) -> tuple[str, bool]:
    """The layer whose weight a node stands for, or none; and whether in float."""
    in_float = node.domain == DOMAIN and node.op_type == WEIGHT
    decodes = in_float or node.op_type == "DequantizeLinear"
    return node.input[0].removesuffix(CODES) if decodes else "", in_float


def _packed(graph: Any, weights: Mapping[str, Stored]) -> dict[str, tuple[Stored, Table | None]]:
    """The weights that `store` rewrites and what their codes are looked up in, by layer."""
    found: dict[str, tuple[Stored, Table | None]] = {}
    for node in graph.node:
        layer, in_float = _weight_of(node)
        stored = weights.get(layer)
        if stored is None or not (in_float or stored.encoding.bits < _BYTE):
            continue
        if in_float:
            found[layer] = stored, None if stored.native else levels(stored.encoding)
        else:
            integers = integer_levels(stored.encoding)
            assert integers is not None  # otherwise torch was given a WEIGHT node
            found[layer] = stored, integers[0]
    return found


def is_native(encoding: Encoding, scheme: Scheme) -> bool:
    """Whether a scheme wants a weight as ONNX integers of its width."""
    low = isinstance(encoding, Affine) and encoding.bits in NATIVE
    return low and scheme.low_bits == "native"


def kernel_integers(stored: Stored) -> tuple[NDArray[np.int8], Floats] | None:
    """Weight and scale as integer kernels compute them: scaled per tensor or output channel."""
    encoding = stored.encoding
    if not (encoding.granularity == PerChannel(axis=0) or encoding.granularity == PerTensor()):
        return None
    found = integer_levels(encoding)
    if found is None:
        return None
    table, scale = found
    return table[stored.codes & ((1 << encoding.bits) - 1)], scale


def form(stored: Stored, held: Widths, *, in_float: bool) -> Form | None:
    """How a target stores a weight at its real size; None where it cannot.

    Args:
        stored: The weight.
        held: What the target holds, for this kind of layer.
        in_float: The layer's input is float, so that no integer kernel can run.
    """
    bits = stored.encoding.bits
    if not in_float and bits in held.kernel and kernel_integers(stored) is not None:
        return "kernel"
    return "storage only" if bits in held.storage else None


def _take(initializers: Any, name: str) -> None:
    initializers.remove(next(i for i in initializers if i.name == name))


@dataclass(slots=True)
class _Nodes:
    """Nodes and constants in front of a graph; equal constants are stored once.

    Attributes:
        together: Layer -> its values, flat, where they are looked up with those of others.
    """

    graph: Any
    nodes: list[Any] = field(default_factory=list)
    constants: dict[tuple[str, tuple[int, ...], bytes], str] = field(default_factory=dict)
    together: dict[str, str] = field(default_factory=dict)

    def unpack_together(self, packed: Mapping[str, tuple[Stored, Table | None]]) -> None:
        """Look up the codes of small layers that share width and table in one go."""
        alike: dict[tuple[int, bytes], list[str]] = {}
        for layer, (stored, table) in packed.items():
            if table is not None and stored.codes.size <= _SMALL_LAYER:
                alike.setdefault((stored.encoding.bits, table.tobytes()), []).append(layer)
        for (bits, _), layers in alike.items():
            table = packed[layers[0]][1]
            if len(layers) == 1 or table is None:
                continue
            flat = [packed[layer][0].codes.reshape(-1) for layer in layers]
            rest = -sum(len(codes) for codes in flat) % _BYTE
            if rest:
                flat.append(np.zeros(rest, np.int32))  # a part for nobody, to fill the last byte
            name = f"*{len(self.together)}{CODES}"
            values = self._looked_up(np.concatenate(flat), bits, table, name)
            counts = self.constant(np.array([len(codes) for codes in flat]))
            parts = self._split(self._reshaped(values, (-1,)), counts, len(flat))
            self.together |= dict(zip(layers, parts, strict=False))

    def _split(self, values: str, counts: str, parts: int) -> list[str]:
        from onnx import helper

        made = [f"unpacked_{len(self.nodes)}_{part}" for part in range(parts)]
        self.nodes.append(helper.make_node("Split", [values, counts], made))
        return made

    def derive_zeros(self, node: Any) -> None:
        """Let a runtime make the zero points of many channels when it loads the file."""
        from onnx import helper, numpy_helper

        stored = next((i for i in self.graph.initializer if i.name in node.input[2:]), None)
        if stored is None:
            return
        zeros = numpy_helper.to_array(stored)
        if zeros.any() or zeros.nbytes <= _FEW_ZEROS:
            return
        self.graph.initializer.remove(stored)
        value = helper.make_tensor("", stored.data_type, [1], [0])
        shape = self.constant(np.array(zeros.shape))
        node.input[2] = self.node("ConstantOfShape", shape, value=value)

    def prepend(self) -> None:
        """Put the nodes before those of the graph, which need their outputs."""
        self.nodes += self.graph.node
        del self.graph.node[:]
        self.graph.node.extend(self.nodes)

    def integers(self, layer: str, stored: Stored) -> str:
        """The int8 tensor in the weight's shape."""
        found = integer_levels(stored.encoding)
        assert found is not None  # otherwise torch was given a WEIGHT node
        return self._reshaped(self._values(layer, stored, found[0]), stored.codes.shape)

    def floats(self, layer: str, stored: Stored) -> str:
        """The float32 tensor ``(levels[code] - zero_point) * scale + offset``."""
        codes, encoding = stored.codes, stored.encoding
        shape, groups = _aligned(codes.shape, encoding.granularity)
        missing = int(np.prod(shape)) - codes.size
        if stored.native and isinstance(encoding, Affine):
            whole = np.pad(codes.reshape(-1), (0, missing)).reshape(shape)
            values = self._dequantized(whole, encoding, groups, layer + CODES)
        else:
            values = self._scaled(stored, shape, groups, layer)
        if encoding.offset is not None:
            values = self.node("Add", values, self.constant(encoding.offset.reshape(groups)))
        if missing:
            values = self._first(values, codes.size)
        return self._reshaped(values, codes.shape)

    def _scaled(
        self, stored: Stored, shape: tuple[int, ...], groups: tuple[int, ...], layer: str
    ) -> str:
        """``(levels[code] - zero_point) * scale`` of packed codes, in `shape`."""
        codes, encoding = stored.codes, stored.encoding
        values = self._values(layer, stored, levels(encoding))
        missing = int(np.prod(shape)) - codes.size
        if missing:
            flat = self._reshaped(values, (-1,))
            values = self.node("Pad", flat, self.constant(np.array([0, missing])))
        values = self._reshaped(values, shape)
        if isinstance(encoding, Affine) and encoding.zero_point.any():
            zeros = self._looked_up(encoding.zero_point, encoding.bits, levels(encoding), "")
            values = self.node("Sub", values, self._reshaped(zeros, groups))
        return self.node("Mul", values, self.constant(encoding.scale.reshape(groups)))

    def _dequantized(
        self, codes: NDArray[np.int32], encoding: Affine, groups: tuple[int, ...], name: str
    ) -> str:
        """The same of native codes, (blocks, size) where scales are per block."""
        shared, attributes, form = encoding.granularity, {}, encoding.scale.shape
        if isinstance(shared, PerBlock):
            # whole blocks: OpenVINO reads no flat ones
            attributes, form = {"axis": 1, "block_size": codes.shape[1]}, groups
        elif isinstance(shared, PerChannel):
            attributes = {"axis": shared.axis % codes.ndim}
        inputs = [self._native(codes, encoding, name), self.constant(encoding.scale.reshape(form))]
        if encoding.zero_point.any():
            zeros = encoding.zero_point.reshape(form)
            inputs.append(self._native(zeros, encoding, f"{name}/zero_point"))
        return self.node("DequantizeLinear", *inputs, **attributes)

    def _native(self, codes: NDArray[np.int32], encoding: Affine, name: str) -> str:
        from onnx import TensorProto, helper

        element = TensorProto.DataType.Value(f"{'' if encoding.signed else 'U'}INT{encoding.bits}")
        raw = pack(codes, encoding.bits).tobytes()
        stored = helper.make_tensor(name, element, codes.shape, raw, raw=True)
        self.graph.initializer.append(stored)
        return name

    def _values(self, layer: str, stored: Stored, table: Table) -> str:
        """``table[code]`` of a layer's codes, flat."""
        if layer in self.together:
            return self.together[layer]
        return self._looked_up(stored.codes, stored.encoding.bits, table, layer + CODES)

    def _looked_up(self, codes: NDArray[np.integer], bits: int, table: Table, name: str) -> str:
        """``table[code]`` of packed codes, flat."""
        width = field_bits(bits)
        packed = self.constant(pack(codes, bits)[:, :, None], name)
        wide = self.node("Cast", packed, to=np.dtype(np.int32))
        if width < _BYTE:
            shifts = self.constant((1 << np.arange(0, _BYTE, width)).astype(np.int32))
            modulus = self.constant(np.array(1 << width, np.int32))
            wide = self.node("Mod", self.node("Div", wide, shifts), modulus)
        if width < bits:
            places = (1 << np.arange(0, bits, width)).astype(np.int32)
            parts = self.node("Mul", wide, self.constant(places.reshape(-1, 1, 1)))
            wide = self.node("ReduceSum", parts, self.constant(np.array([0])), keepdims=0)
        values = self.node("Gather", self.constant(table), wide)
        return self._first(values, codes.size, exact=codes.size * width % _BYTE == 0)

    def _first(self, values: str, count: int, *, exact: bool = False) -> str:
        """The first `count` values, flat; `exact` where there are no others."""
        if exact:
            return values  # a Reshape follows
        flat = self._reshaped(values, (-1,))
        ends = self.constant(np.array([0])), self.constant(np.array([count]))
        return self.node("Slice", flat, *ends)

    def _reshaped(self, values: str, shape: tuple[int, ...]) -> str:
        return self.node("Reshape", values, self.constant(np.array(shape)))

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Add a node; returns the tensor that it makes."""
        from onnx import helper

        output = f"unpacked_{len(self.nodes)}"
        types = {k: _element(v) if isinstance(v, np.dtype) else v for k, v in attributes.items()}
        self.nodes.append(helper.make_node(op, inputs, [output], **types))
        return output

    def constant(self, value: NDArray[Any], name: str = "") -> str:
        """Add a constant, or find the one that is equal."""
        from onnx import numpy_helper

        key = (value.dtype.name, value.shape, value.tobytes())
        if key not in self.constants:
            self.constants[key] = name or f"constant_{len(self.constants)}"
            stored = numpy_helper.from_array(value, self.constants[key])
            self.graph.initializer.append(stored)
        return self.constants[key]


def _aligned(
    shape: tuple[int, ...], granularity: Granularity
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shape of the values, and shape of the scales that broadcasts against it."""
    groups = scale_shape(shape, granularity)
    if isinstance(granularity, PerBlock):
        return (*groups, min(granularity.size, math.prod(shape))), (*groups, 1)
    own = granularity.axis % len(shape) if isinstance(granularity, PerChannel) else None
    return shape, tuple(n if axis == own else 1 for axis, n in enumerate(shape))


def _element(dtype: np.dtype[Any]) -> int:
    from onnx import helper

    element: int = helper.np_dtype_to_tensor_dtype(dtype)
    return element
