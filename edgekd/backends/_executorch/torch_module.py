"""An ONNX file as a torch module, for runtimes that are reached through ``torch.export``.

It knows the operators that edgekd writes and a few more, and refuses every other by name. Codes
stay codes: QuantizeLinear and DequantizeLinear become the ``quantized_decomposed`` operators that
torch's own quantization makes, which is what such runtimes look for.

Two rewritings leave every value as it is, and are needed for integer kernels: uint8 codes become
int8 codes around a zero point that is 128 lower; and a grid behind a Reshape or its kin is put in
front of it as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from edgekd.backends._executorch.operators import OPERATORS, Call
from edgekd.backends._executorch.values import Codes, Moved
from edgekd.backends._onnx.specs import check_fixed, input_specs
from edgekd.core.errors import UnsupportedError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


class OnnxModule(nn.Module):
    """Takes the file's inputs in order and gives a tuple of its outputs.

    Args:
        model: With its weights.
        path: Names it in errors.
        runtime: What it is brought to, for errors.

    Raises:
        UnsupportedError: An operator or an axis is one that cannot be brought there.
    """

    def __init__(self, model: onnx.ModelProto, path: Path, runtime: str) -> None:
        super().__init__()
        self._path, self._runtime = path, runtime
        self._nodes = list(model.graph.node)
        self._users: dict[str, list[onnx.NodeProto]] = {}
        for node in self._nodes:
            for name in node.input:
                self._users.setdefault(name, []).append(node)
        self._outputs = [o.name for o in model.graph.output]
        self._inputs = input_specs(model, path)
        self._check()
        check_fixed(self._inputs, path)
        self._constants = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}
        for node in self._nodes:
            if node.op_type == "Constant":
                self._constants[node.output[0]] = _constant(node)
        with torch.no_grad():
            self(*self.example())  # keeps the constants, and meets whatever is not supported

    def example(self) -> tuple[Tensor, ...]:
        """Inputs of zeros."""
        return tuple(
            torch.from_numpy(np.zeros([n or 1 for n in spec.shape], spec.dtype))
            for spec in self._inputs
        )

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Every node in order."""
        values: dict[str, Any] = dict(self._constants)
        values.update((spec.name, v) for spec, v in zip(self._inputs, inputs, strict=True))
        for index, node in enumerate(self._nodes):
            if node.op_type != "Constant":
                values[node.output[0]] = self._call(index, node, values)
        return tuple(_real(values[name]) for name in self._outputs)

    def layer(self, buffer: str) -> str:
        """Name of the node that a constant was kept for."""
        return str(self._nodes[int(buffer.split("_")[1])].name)

    def _call(self, index: int, node: onnx.NodeProto, values: dict[str, Any]) -> Any:
        def buffer(number: int, value: NDArray[Any]) -> Tensor:
            name = f"node_{index}_{number}"
            if name not in self._buffers:
                self.register_buffer(name, torch.from_numpy(np.array(value)))
            kept: Tensor = getattr(self, name)
            return kept

        call = Call(node, self._path, self._runtime, values, buffer, on_grid=self._on_grid(node))
        return OPERATORS[node.op_type](call)

    def _on_grid(self, node: onnx.NodeProto) -> bool:
        users = self._users.get(node.output[0], [])
        if len(users) == 1 and users[0].op_type in ("Relu", "Clip"):
            users = self._users.get(users[0].output[0], [])
        return len(users) == 1 and users[0].op_type == "QuantizeLinear"

    def _check(self) -> None:
        for node in self._nodes:
            known = node.op_type in OPERATORS or node.op_type == "Constant"
            if not known or node.domain not in ("", "ai.onnx") or len(node.output) != 1:
                op = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
                raise UnsupportedError(
                    f"edgekd cannot bring {self._path} to {self._runtime}.",
                    expected=", ".join(sorted(OPERATORS)),
                    got=f"the {op} {node.name or node.output[0]!r}",
                    todo="try another target, or a student without that operator",
                )


def _constant(node: onnx.NodeProto) -> NDArray[Any]:
    value = onnx.helper.get_attribute_value(node.attribute[0])
    is_tensor = isinstance(value, onnx.TensorProto)
    return onnx.numpy_helper.to_array(value) if is_tensor else np.asarray(value)


def _real(value: Any) -> Tensor:
    real: Tensor = value.real() if isinstance(value, Codes | Moved) else value
    return real
