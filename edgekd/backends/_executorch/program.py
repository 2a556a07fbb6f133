"""Compiling for ExecuTorch: what XNNPACK takes over, and what is left to portable kernels."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import onnx
import torch

from edgekd.backends._executorch.torch_module import OnnxModule
from edgekd.backends._onnx.qdq import FileGraph
from edgekd.backends._onnx.specs import input_specs, output_specs
from edgekd.backends.executorch import NAME, NOTES
from edgekd.core.types import LayerRecord

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its packages warn about each other
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import EdgeCompileConfig, EdgeProgramManager, to_edge_transform_and_lower

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgekd.core.types import Precision, Role

_MATMULS = frozenset({"convolution", "linear", "addmm", "mm", "bmm"})
_ACTIVATIONS = frozenset({"relu", "hardtanh", "clamp"})
#: they carry values to kernels, and are none
_UNSEEN = frozenset({"getitem", "choose_qparams", "executorch_call_delegate", "permute_copy"})
_NO_GRID = "no QuantizeLinear on its output"
_LEFT = "XNNPACK does not take it"


def compiled(model: onnx.ModelProto, path: Path) -> bytes:
    """The program for a model, with notes on its tensors and kernels inside.

    Raises:
        UnsupportedError: It cannot be brought to ExecuTorch. The compiler raises what its passes
            raise, beside that.
    """
    onnx.checker.check_model(model)
    module = OnnxModule(model, path, NAME).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about its own deprecations
        exported = torch.export.export(module, module.example(), strict=False)
        lowered = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
        program = lowered.exported_program()
        notes = {
            "inputs": [(s.name, s.dtype, s.shape) for s in input_specs(model, path)],
            "outputs": [(s.name, s.dtype, s.shape) for s in output_specs(model, path)],
            "layers": [
                (layer.name, layer.op, layer.role, layer.precision, layer.reason)
                for layer in _layers(program.graph_module, module, FileGraph(model))
            ],
        }
        config = EdgeCompileConfig(_check_ir_validity=False)  # they were, before lowering
        edge = EdgeProgramManager(program, {NOTES: json.dumps(notes)}, config)
        return bytes(edge.to_executorch().buffer)


def _layers(graph: Any, module: OnnxModule, source: FileGraph) -> Iterator[LayerRecord]:
    """Every kernel: XNNPACK's, which one delegate call runs together, and the portable ones."""
    taken: set[str] = set()
    for node in graph.graph.nodes:
        if node.op == "get_attr" and hasattr(getattr(graph, node.target), "original_module"):
            inside = getattr(graph, node.target).original_module.graph.nodes
            kernels = [_record(n, module, source, "XNNPACK ") for n in inside]
        else:
            kernels = [_record(node, module, source, "portable ")]
        for kernel in filter(None, kernels):
            name = kernel.name
            while name in taken:
                name += "+"
            taken.add(name)
            yield replace(kernel, name=name)


def _record(node: Any, module: OnnxModule, source: FileGraph, by: str) -> LayerRecord | None:
    if node.op != "call_function" or _op(node) in _UNSEEN:
        return None
    op = _op(node)
    if "quantize_per" in op:
        if _absorbed(node):
            return None
        ends = (node.args[0], *node.users)
        # a float result has its price at the graph's output, or in front of the last kernel
        outer = any(n.op in ("placeholder", "output") or _op(n) == "choose_qparams" for n in ends)
        kind: Role = "other" if outer else "requantize"
        return LayerRecord(node.name, by + op, kind, "float32")
    inner = by.startswith("XNNPACK")
    precision: Precision = "int8" if inner and _on_codes(node) else "float32"
    if op not in _MATMULS:
        if op in _ACTIVATIONS and _op(node.args[0]) in _MATMULS and inner:
            return None  # a part of the kernel in front
        return LayerRecord(node.name, by + op, "other", precision)
    name = _layer(node, module)
    origin = source.origin(name)
    reason = ""
    if precision != "int8":
        reason = source.why_float(origin, strict=False) if origin is not None else ""
        reason = reason or (_NO_GRID if inner else _LEFT)
    return LayerRecord(name, by + op, "matmul", precision, None, reason)


def _absorbed(node: Any) -> bool:
    """Whether a Q or DQ node is a part of the integer kernels around it."""
    if _op_type(node) == "tensor":
        return True  # with a range found while it runs, by a kernel that has a float result
    around = [node.args[0]] if _op(node).startswith("quantize") else list(node.users)
    return all(_is_kernel(n) and _on_codes(n) for n in around)


def _is_kernel(node: Any) -> bool:
    return node.op == "call_function" and "quantize_per" not in _op(node)


def _on_codes(node: Any) -> bool:
    """Whether every tensor that a kernel computes on comes as codes."""
    if _op(node) in _ACTIVATIONS | {"permute_copy"}:
        return _on_codes(node.args[0]) if _is_kernel(node.args[0]) else _is_decoder(node.args[0])
    count = 2 if _op(node) in _MATMULS | {"add", "mul", "sub"} else 1
    tensors = [a for a in node.args if hasattr(a, "op")]
    if _op(node) == "addmm":
        tensors = tensors[1:]  # a bias comes first
    return bool(tensors) and all(_is_decoder(_unmoved(a)) for a in tensors[:count])


def _is_decoder(node: Any) -> bool:
    return node.op == "call_function" and _op(node).startswith("dequantize")


def _unmoved(node: Any) -> Any:
    return node.args[0] if _op(node) == "permute_copy" else node


def _layer(node: Any, module: OnnxModule) -> str:
    """The file's name for the layer whose weights a kernel reads."""
    places = (2, 1) if _op(node) == "addmm" else (1,)
    for place in places:
        weight = node.args[place]
        while weight.op == "call_function" and weight.all_input_nodes:
            weight = weight.all_input_nodes[0]
        if weight.name.startswith("b_node_"):
            return module.layer(weight.name.removeprefix("b_"))
    return str(node.name)


def _op(node: Any) -> str:
    """``aten.convolution.default`` -> ``convolution``."""
    target = getattr(node, "target", None)
    parts = str(getattr(target, "__name__", target)).split(".")
    return parts[1] if len(parts) > 1 else parts[0]


def _op_type(node: Any) -> str:
    return str(getattr(node.target, "__name__", "")).rpartition(".")[2]
