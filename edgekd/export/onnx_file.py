"""ONNX bytes of a float module or a quantized student, pinned to an opset and an IR version."""

from __future__ import annotations

import copy
import logging
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from edgekd.core.errors import UnsupportedError
from edgekd.core.types import QuantizedStudent, Scheme
from edgekd.export.compact import compact, derive_bias_scales, narrow_biases
from edgekd.export.emit import CODES, GRID_SCALE, EmitGlobalPool, EmitGrid, EmitLayer
from edgekd.export.storage import NATIVE, Stored, is_native, store

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

INPUT, OUTPUT = "input", "logits"
#: ONNX Runtime 1.20 and newer, OpenVINO and TensorRT 10 all read it
IR_VERSION = 10
#: QuantizeLinear saturates at the ends of int8 or uint8, so a narrower grid would not be the same
_GRID_BITS = 8
_SPATIAL = ((2, 3), (-2, -1))
#: suffixes of a tensor on a grid after DequantizeLinear, and of the node that puts it there
_REAL, _QUANTIZE = "/real", "/q"


def float_model(
    module: nn.Module, input_shape: tuple[int, ...], *, batch_size: int, opset: int
) -> bytes:
    """A float module as ONNX, input ``input`` (batch_size, *input_shape), output ``logits``.

    Raises:
        UnsupportedError: torch cannot export it.
    """
    return _export(copy.deepcopy(module), input_shape, batch_size=batch_size, opset=opset)


def quantized_model(
    student: QuantizedStudent, scheme: Scheme, input_shape: tuple[int, ...], *, batch_size: int
) -> bytes:
    """A quantized student as Q/DQ ONNX in the integers of `scheme`.

    Every tensor on a grid is called as the fx node that makes it, and every layer's node as its
    dotted path, so that any runtime's names lead back to the student.

    Raises:
        UnsupportedError: An activation has a width that QuantizeLinear does not write, native
            weights meet quantized activations, or torch cannot export the student.
    """
    _check_grids(student, scheme)
    native = [e.bits for e in student.weights.values() if is_native(e, scheme)]
    opset = max([scheme.opset, *(NATIVE[bits][0] for bits in native)])
    scheme = scheme.model_copy(update={"opset": opset})
    graph = copy.deepcopy(student.graph)
    _emit_pools(graph, scheme.opset)
    weights = _emit_layers(graph, student, scheme)
    for name, affine in student.activations.items():
        _put_grid(graph, name, EmitGrid(affine, scheme))
    graph.recompile()
    return _export(
        graph.eval(), input_shape, batch_size=batch_size, opset=scheme.opset, weights=weights
    )


def with_taps(model: bytes) -> tuple[bytes, list[str]]:
    """The model with the tensors on a grid as further outputs, and their names, in order."""
    import onnx

    proto = onnx.load_from_string(model)
    made = [output for node in proto.graph.node for output in node.output]
    names = [output.removesuffix(_REAL) for output in made if output.endswith(_REAL)]
    for name in names:
        info = onnx.helper.make_tensor_value_info(name + _REAL, onnx.TensorProto.FLOAT, None)
        proto.graph.output.append(info)
    return proto.SerializeToString(), names


def refuse_native(scheme: Scheme) -> None:
    """Raise where a scheme wants native low-bit weights, which need activations in float.

    Raises:
        UnsupportedError: It does.
    """
    if scheme.low_bits == "native":
        raise UnsupportedError(
            "Native low-bit weights do not go with quantized activations.",
            expected="activations in float, or packed weights, which integer kernels compute",
            got="scheme.low_bits: native",
            todo="set quantize.activation_bits to float, or low_bits to packed in the target",
        )


def _check_grids(student: QuantizedStudent, scheme: Scheme) -> None:
    if student.activations:
        refuse_native(scheme)
    for name, grid in student.activations.items():
        if grid.bits != _GRID_BITS:
            raise UnsupportedError(
                f"The activation {name!r} has {grid.bits} bits, which no ONNX file holds.",
                expected=f"{_GRID_BITS} bits, or float",
                got=f"{grid.bits} bits; integers saturate at the ends of int8 or uint8",
                todo=f"set quantize.activation_bits to {_GRID_BITS} or float",
            )


def _emit_layers(
    graph: fx.GraphModule, student: QuantizedStudent, scheme: Scheme
) -> dict[str, Stored]:
    """Replace the quantized layers; returns what their weights are made of."""
    stored: dict[str, Stored] = {}
    for node in graph.graph.nodes:
        path = str(node.target)
        if node.op != "call_module" or path not in student.weights or path in stored:
            continue
        source = student.activations.get(node.args[0].name)
        parent, _, name = path.rpartition(".")
        layer: Any = graph.get_submodule(path)
        encoding = student.weights[path]
        native = is_native(encoding, scheme)
        made = Stored.of(layer.weight.detach().numpy(), encoding, native=native)
        scale = None if source is None else float(source.scale)
        emitted = EmitLayer(layer, made, scale, scheme, number=len(stored))
        setattr(graph.get_submodule(parent), name, emitted)
        stored[path] = made
    return stored


def _emit_pools(graph: fx.GraphModule, opset: int) -> None:
    """Replace every mean over height and width by GlobalAveragePool."""
    layers = dict(graph.named_modules())
    for node in list(graph.graph.nodes):
        keep_dims = _global_pool(node, layers)
        if keep_dims is None:
            continue
        pool = f"{node.name}_pool"
        graph.add_submodule(pool, EmitGlobalPool(opset, keep_dims=keep_dims))
        with graph.graph.inserting_after(node):
            replacement = graph.graph.call_module(pool, (node.args[0],))
        node.replace_all_uses_with(replacement)
        name = node.name
        graph.graph.erase_node(node)
        replacement.name = name  # grids are found by it


def _global_pool(node: fx.Node, layers: dict[str, nn.Module]) -> bool | None:
    """Whether the node pools globally: None if not, else whether it keeps the two dims."""
    if node.op == "call_module":
        layer = layers[str(node.target)]
        is_pool = isinstance(layer, nn.AdaptiveAvgPool2d) and layer.output_size in (1, (1, 1))
        return True if is_pool else None
    if node.target is F.adaptive_avg_pool2d:
        return True if node.args[1:] in ((1,), ((1, 1),)) else None
    if node.target in ("mean", torch.mean):
        dims = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
        if isinstance(dims, list | tuple) and tuple(dims) in _SPATIAL:
            return bool(node.kwargs.get("keepdim", False))
    return None


def _put_grid(graph: fx.GraphModule, name: str, grid: EmitGrid) -> None:
    node = next(n for n in graph.graph.nodes if n.name == name)
    graph.add_submodule(name + "_grid", grid)
    with graph.graph.inserting_after(node):
        call = graph.graph.call_module(name + "_grid", (node,))
    node.replace_all_uses_with(call, delete_user_cb=lambda user: user is not call)


def _export(
    module: nn.Module,
    input_shape: tuple[int, ...],
    *,
    batch_size: int,
    opset: int,
    weights: Mapping[str, Stored] | None = None,
) -> bytes:
    example = torch.zeros(batch_size, *input_shape)
    module.eval()
    try:
        with _quiet():
            program = torch.onnx.export(
                module,
                (example,),
                dynamo=True,
                opset_version=opset,
                input_names=[INPUT],
                output_names=[OUTPUT],
                verbose=False,
            )
    except Exception as e:
        cause = e.__cause__ or e
        raise UnsupportedError(
            f"torch cannot export the {type(module).__name__} to ONNX opset {opset}.",
            got=f"{type(cause).__name__}: {(str(cause).strip().splitlines() or [''])[0]}",
            todo="replace the operation it names, or use another student family",
        ) from e
    assert program is not None
    return _finished(program.model_proto, weights or {})


def _finished(proto: Any, weights: Mapping[str, Stored]) -> bytes:
    """Strip what the exporter leaves behind, name nodes after the student, pack the weights."""
    import onnx

    versions = (NATIVE[s.encoding.bits][1] for s in weights.values() if s.native)
    proto.ir_version = max([IR_VERSION, *versions])
    proto.producer_name, proto.producer_version = "edgekd", ""
    graph = proto.graph
    graph.name = "edgekd"
    _name_nodes(graph)
    _own_zero_points(graph)
    derive_bias_scales(graph)
    narrow_biases(graph)
    store(proto, weights)
    compact(
        proto,
        keep_node=lambda node: node.op_type != "DequantizeLinear",
        keep_tensor=lambda name: name.endswith((_REAL, f".{CODES}")),
    )
    onnx.checker.check_model(proto, full_check=True)
    data: bytes = proto.SerializeToString(deterministic=True)
    return data


def _own_zero_points(graph: Any) -> None:
    """Give every weight a zero point of its own.

    The exporter lets weights of equal shape share one; ONNX Runtime, where it turns signed
    weights into unsigned ones for a CPU without VNNI, then refuses the file.
    """
    stored = {i.name: i for i in graph.initializer}
    taken: set[str] = set()
    for node in graph.node:
        if (
            node.op_type != "DequantizeLinear"
            or len(node.input) < 3
            or node.input[0] not in stored
        ):
            continue
        name = node.input[2]
        if name in taken:
            own = graph.initializer.add()
            own.CopyFrom(stored[name])
            node.input[2] = own.name = f"{node.output[0]}/zero_point"
        taken.add(name)


def _name_nodes(graph: Any) -> None:
    """Name layers by their path and tensors on a grid by their fx node."""
    makers = {output: node for node in graph.node for output in node.output}
    renamed: dict[str, str] = {}
    uses: dict[str, int] = {}
    for node in graph.node:
        owner = _owner(node, makers)
        if owner is None:
            node.name = node.name.removeprefix("node_")
            continue
        repeats = uses[owner + node.op_type] = uses.get(owner + node.op_type, 0) + 1
        owner += f"#{repeats}" if repeats > 1 else ""
        if node.op_type == "DequantizeLinear":
            renamed[node.output[0]] = owner + _REAL
        node.name = owner + (_QUANTIZE if node.op_type == "QuantizeLinear" else "")
    outputs = {o.name for o in graph.output}
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [n if n in outputs else renamed.get(n, n) for n in names]


def _owner(node: Any, makers: dict[str, Any]) -> str | None:
    """Path of the layer or name of the fx node that an ONNX node belongs to."""
    if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
        grid = _parameter(node.input[1], GRID_SCALE)
        return None if grid is None else grid.removesuffix("_grid")
    for name in node.input[1:]:
        maker = makers.get(name)
        source = maker.input[0] if maker is not None else name
        for field in (CODES, "weight"):
            owner = _parameter(source, field)
            if owner is not None:
                return owner
    return None


def _parameter(name: str, field: str) -> str | None:
    """``"a.b.field"`` -> ``"a.b"``."""
    owner, _, last = name.rpartition(".")
    return owner if last == field and owner else None


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns about packages nobody asked for and about its own deprecations."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
