"""Takes out of a model what no runtime needs: a 2-bit student is not larger for its names."""

from __future__ import annotations

import string
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

_DEQUANTIZE = "DequantizeLinear"
_LETTERS = string.ascii_letters + string.digits
#: attributes that mean nothing where all their entries are this number (ONNX Conv, MaxPool)
_NEUTRAL = {"dilations": 1, "strides": 1, "pads": 0}
#: bytes that have to be saved for two nodes more
_WORTH_TWO_NODES = 128


def compact(
    proto: Any, *, keep_node: Callable[[Any], bool], keep_tensor: Callable[[str], bool]
) -> None:
    """Strip a model in place; it computes the same.

    Args:
        proto: An ``onnx.ModelProto`` without branches or loops.
        keep_node: Whether a node's name tells a reader something; the others lose theirs.
        keep_tensor: Likewise for tensors, which get a short name instead.
    """
    graph = proto.graph
    del proto.metadata_props[:], graph.metadata_props[:]
    # stack traces and shapes; runtimes infer the shapes again
    del graph.value_info[:]
    for item in (graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        del item.metadata_props[:]
        item.ClearField("doc_string")
    shapes = {i.name: i for i in graph.initializer}
    for node in graph.node:
        _drop_defaults(node, {o.domain: o.version for o in proto.opset_import})
        if node.op_type == "Reshape" and node.input[1] in shapes:
            _drop_allowzero(node, shapes[node.input[1]])
        if not keep_node(node):
            node.ClearField("name")
    for initializer in graph.initializer:
        _pack_numbers(initializer)
    _shorten(graph, keep_tensor)


def derive_bias_scales(graph: Any) -> None:
    """Let runtimes multiply ``input scale * weight scale`` when they load the file, in place.

    The product is what an int32 bias is scaled by; two of the three need no bytes.
    """
    from onnx import helper, numpy_helper

    makers = {output: node for node in graph.node for output in node.output}
    constants = {i.name: i for i in graph.initializer}
    products = []
    for node in graph.node:
        decoded = [makers.get(name) for name in node.input]
        if len(decoded) != 3 or {getattr(n, "op_type", "") for n in decoded} != {_DEQUANTIZE}:
            continue
        scales = [n.input[1] for n in decoded if n is not None]
        if not all(name in constants for name in scales):
            continue
        value, weight, bias = (numpy_helper.to_array(constants[name]) for name in scales)
        if bias.ndim and np.array_equal(value * weight, bias):
            product = f"{node.name}/bias_scale"
            products.append(helper.make_node("Mul", scales[:2], [product]))
            makers[node.input[2]].input[1] = product
    used = {name for node in graph.node for name in node.input}
    for name in constants.keys() - used:
        graph.initializer.remove(constants[name])
    nodes = [*products, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def narrow_biases(graph: Any) -> None:
    """Store the int32 biases that fit into 16 bits together in int16, in place.

    At few bits the steps of a bias are wide and its codes small. Runtimes take the tensor apart
    when they load the file.
    """
    from onnx import TensorProto, helper, numpy_helper

    constants = {i.name: i for i in graph.initializer}
    limits = np.iinfo(np.int16)
    found: dict[str, NDArray[np.int32]] = {}
    for node in graph.node:
        stored = constants.get(node.input[0]) if node.op_type == _DEQUANTIZE else None
        if stored is None or stored.data_type != TensorProto.INT32 or len(stored.dims) != 1:
            continue
        codes = numpy_helper.to_array(stored)
        if limits.min <= codes.min() and codes.max() <= limits.max:
            found[stored.name] = codes
    saved = sum(codes.nbytes // 2 for codes in found.values())
    if saved < _WORTH_TWO_NODES:
        return
    for name in found:
        graph.initializer.remove(constants[name])
    together = np.concatenate(list(found.values())).astype(np.int16)
    counts = np.array([len(codes) for codes in found.values()])
    graph.initializer.append(numpy_helper.from_array(together, "biases"))
    graph.initializer.append(numpy_helper.from_array(counts, "biases/counts"))
    nodes = [
        helper.make_node("Cast", ["biases"], ["biases/wide"], to=TensorProto.INT32),
        helper.make_node("Split", ["biases/wide", "biases/counts"], list(found)),
        *graph.node,
    ]
    del graph.node[:]
    graph.node.extend(nodes)


def _drop_defaults(node: Any, opsets: dict[str, int]) -> None:
    from onnx import defs

    known = defs.get_schema(node.op_type, opsets[node.domain], node.domain).attributes
    for attribute in list(node.attribute):
        default = known[attribute.name].default_value
        same = default.type == attribute.type and default == attribute
        neutral = _NEUTRAL.get(attribute.name)
        if same or (neutral is not None and set(attribute.ints) == {neutral}):
            node.attribute.remove(attribute)


def _drop_allowzero(node: Any, shape: Any) -> None:
    """What it says of zeros in a shape means nothing where there are none."""
    from onnx import numpy_helper

    if numpy_helper.to_array(shape).all():
        for attribute in [a for a in node.attribute if a.name == "allowzero"]:
            node.attribute.remove(attribute)


def _pack_numbers(initializer: Any) -> None:
    """Write int64 numbers as varints: a shape then takes a byte or two a dimension, not eight."""
    from onnx import TensorProto, numpy_helper

    if initializer.data_type != TensorProto.INT64 or not initializer.HasField("raw_data"):
        return
    packed = TensorProto(
        name=initializer.name,
        data_type=initializer.data_type,
        dims=initializer.dims,
        int64_data=numpy_helper.to_array(initializer).ravel().tolist(),
    )
    if packed.ByteSize() < initializer.ByteSize():
        initializer.CopyFrom(packed)


def _shorten(graph: Any, keep: Callable[[str], bool]) -> None:
    kept = {item.name for item in (*graph.input, *graph.output)}
    names = [i.name for i in graph.initializer] + [o for n in graph.node for o in n.output]
    kept |= {name for name in names if keep(name)}
    short = (name for name in _short_names() if name not in kept)
    renamed = {name: next(short) for name in dict.fromkeys(names) if name and name not in kept}
    for initializer in graph.initializer:
        initializer.name = renamed.get(initializer.name, initializer.name)
    for node in graph.node:
        for tensors in (node.input, node.output):
            tensors[:] = [renamed.get(name, name) for name in tensors]


def _short_names() -> Iterator[str]:
    """Letters from a to Z, digits, then pairs from aa to 99, and so on."""
    for number in count():
        name, rest = "", number
        while not name or rest >= 0:
            rest, letter = divmod(rest, len(_LETTERS))
            name += _LETTERS[letter]
            rest -= 1
        yield name
