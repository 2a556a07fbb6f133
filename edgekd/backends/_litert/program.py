"""An ONNX file as a LiteRT one.

It knows the operators that edgekd writes and a few more, and refuses every other by name. Codes
stay codes: a kernel between a DequantizeLinear and a QuantizeLinear becomes LiteRT's integer
kernel, with its activation inside. uint8 codes become int8 codes around a zero point that is 128
lower, which leaves every value as it is. Channels are last inside, and first at inputs and
outputs, as in the ONNX file.
"""

from __future__ import annotations

import json
from pathlib import Path

import onnx

from edgekd.backends._litert.call import RUNTIME, Call, Source
from edgekd.backends._litert.operators import OPERATORS
from edgekd.backends._litert.values import Value, reshaped
from edgekd.backends._litert.writer import Tensor, Writer
from edgekd.backends._onnx.constants import constants
from edgekd.backends._onnx.qdq import FileGraph
from edgekd.backends._onnx.specs import check_fixed, input_specs, output_specs
from edgekd.core.errors import UnsupportedError

#: why layers are in float, by name
NOTES = "edgekd"


def compiled(model: onnx.ModelProto, path: Path) -> bytes:
    """The .tflite file for a model; `path` names it in errors.

    Raises:
        UnsupportedError: It cannot be brought to LiteRT. onnx raises what its checker and its
            evaluator raise, beside that.
    """
    # some writers leave out the shapes of outputs, which the checker wants
    onnx.checker.check_model(onnx.shape_inference.infer_shapes(model))
    specs = input_specs(model, path)
    check_fixed(specs, path)
    source, writer = Source(model, path, constants(model)), Writer()
    values: dict[str, Value] = {}
    inputs: list[Tensor] = []
    for spec in specs:
        if spec.dtype != "float32":
            raise _unsupported(path, "float32 inputs", f"{spec.name!r} of {spec.dtype}")
        shape = tuple(n or 0 for n in spec.shape)
        inputs.append(writer.tensor(spec.name, shape))
        values[spec.name] = Value(writer, spec.name, shape, inputs[-1], last=False)
    for node in model.graph.node:
        _add(node, source, values, writer)
    outputs: list[Tensor] = []
    for spec in output_specs(model, path):
        if spec.name not in values:
            raise _unsupported(path, "computed outputs", f"the constant {spec.name!r}")
        tensor = values[spec.name].tensor(codes=False)
        if tensor in (*inputs, *outputs):
            tensor = reshaped(writer, tensor, writer.tensor(spec.name, tensor.shape))
        writer.rename(tensor, spec.name)
        outputs.append(tensor)
    return writer.finish(inputs, outputs, {NOTES: json.dumps(_reasons(model)).encode()})


def _add(node: onnx.NodeProto, source: Source, values: dict[str, Value], writer: Writer) -> None:
    """Write a node, unless it is constant or a part of the kernel in front of it."""
    name = node.output[0]
    if name in values or name in source.constants:
        return
    if node.op_type not in OPERATORS or node.domain not in ("", "ai.onnx") or len(node.output) > 1:
        op = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        raise _unsupported(
            source.path, ", ".join(sorted(OPERATORS)), f"the {op} {node.name or name!r}"
        )
    call = Call(node, source, values, writer)
    value = OPERATORS[node.op_type](call)
    # behind an activation that became a part of it
    values[name] = values[value.name] = value


def _reasons(proto: onnx.ModelProto) -> dict[str, str]:
    """Why a layer is in float, as far as the file tells."""
    graph = FileGraph(proto)
    nodes = [node for node in proto.graph.node if graph.is_matmul(node.name)]
    reasons = {node.name: graph.why_float(node, strict=False) for node in nodes}
    return {name: reason for name, reason in reasons.items() if reason}


def _unsupported(path: Path, expected: str, got: str) -> UnsupportedError:
    return UnsupportedError(
        f"edgekd cannot bring {path} to {RUNTIME}.",
        expected=expected,
        got=got,
        todo="try another target, or a student without that operator",
    )
