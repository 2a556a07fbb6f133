"""An ONNX graph with who makes and who reads each tensor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray


class Graph:
    """A view of a model's main graph; stale once nodes are added or taken away.

    Args:
        model: An ``onnx.ModelProto``.

    Attributes:
        nodes: Of the main graph, in execution order.
        constants: Initializers by name.
        inputs: Name -> ONNX element type of what a caller feeds.
        outputs: Names of what it gives back.
        inner: Tensors of the main graph that a branch or loop reads.
    """

    def __init__(self, model: Any) -> None:
        graph = model.graph
        self.nodes: list[Any] = list(graph.node)
        self.constants = {i.name: i for i in graph.initializer}
        self.inputs = {
            i.name: i.type.tensor_type.elem_type
            for i in graph.input
            if i.name not in self.constants
        }
        self.outputs = {o.name for o in graph.output}
        self.makers = {output: node for node in graph.node for output in node.output if output}
        self.users: dict[str, list[Any]] = {}
        for node in graph.node:
            for name in dict.fromkeys(filter(None, node.input)):
                self.users.setdefault(name, []).append(node)
        self.inner = {
            name
            for node in graph.node
            for branch in branches(node)
            for name in _read_within(branch)
        }

    def value(self, name: str) -> NDArray[np.generic] | None:
        """An initializer's value; None for anything else."""
        from onnx import numpy_helper

        found = self.constants.get(name)
        return None if found is None else numpy_helper.to_array(found)

    def only_user(self, tensor: str) -> Any | None:
        """The one node that reads a tensor; None where there are others or it is an output."""
        users = self.users.get(tensor, [])
        if len(users) != 1 or tensor in self.outputs or tensor in self.inner:
            return None
        return users[0]


def attribute(node: Any, name: str, default: Any = None) -> Any:
    """The value of a node's attribute."""
    from onnx import helper

    for found in node.attribute:
        if found.name == name:
            return helper.get_attribute_value(found)
    return default


def branches(node: Any) -> Iterator[Any]:
    """The graphs inside a node: branches of an If, bodies of loops."""
    for found in node.attribute:
        if found.HasField("g"):
            yield found.g
        yield from found.graphs


def nodes_within(graph: Any) -> Iterator[Any]:
    """Every node of a graph and of the graphs inside it."""
    for node in graph.node:
        yield node
        for branch in branches(node):
            yield from nodes_within(branch)


def _read_within(graph: Any) -> Iterator[str]:
    yield from (output.name for output in graph.output)
    for node in nodes_within(graph):
        yield from node.input
