"""Where integers go in an ONNX graph: a pure function of the graph and of what stays in float."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgekd.core.errors import UnsupportedError
from edgekd.quantize.onnx_graph.kinds import WeightedLayer, kind, layers

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from edgekd.quantize.onnx_graph.graph import Graph

_FLOAT = 1  # onnx.TensorProto.FLOAT


@dataclass(frozen=True, slots=True)
class Placement:
    """Where integers go.

    Attributes:
        layers: Whose weights become integers, by node name, in execution order.
        arithmetic: Names of the nodes between them that compute in integers.
        grids: Tensors that get a grid of their own, in execution order.
        shared: Tensor -> the tensor whose grid it lies on already.
        operands: Stored inputs of integer arithmetic, that become integers with it.
        alone: Of `grids`, those that only integer readers see: whoever else reads the tensor gets
            it as it was. All readers of the others get the rounded values.
        skipped: Convolution or matrix product left in float -> reason. Never left out.
        floats: Operators that compute in float next to integer layers, and how many.
    """

    layers: Mapping[str, WeightedLayer]
    arithmetic: frozenset[str]
    grids: tuple[str, ...]
    shared: Mapping[str, str]
    operands: tuple[str, ...]
    alone: frozenset[str]
    skipped: Mapping[str, str]
    floats: Mapping[str, int]


def place(
    graph: Graph, kept: Mapping[str, str], fenced: Collection[str] = frozenset()
) -> Placement:
    """Decide which layers and tensors become integers.

    Args:
        graph: After `tidy`.
        kept: Layer that has to stay in float -> reason.
        fenced: Matrix products whose result gets a grid although float follows, so that no
            runtime merges them with what follows before it sees that they are integers.

    Raises:
        UnsupportedError: Nothing is left to quantize.
    """
    found, skipped = layers(graph)
    skipped |= {name: reason for name, reason in kept.items() if name not in skipped}
    weighted = {one.node.name: one for one in found if one.node.name not in skipped}
    if not weighted:
        raise UnsupportedError(
            "No layer of the model can be quantized.",
            expected="at least one convolution or matrix product with stored float weights",
            got="; ".join(f"{count} x {why}" for why, count in _counted(skipped)) or "none found",
        )
    return _Placer(graph, weighted, fenced).placement(skipped)


def _counted(skipped: Mapping[str, str]) -> list[tuple[str, int]]:
    return Counter(skipped.values()).most_common()


class _Placer:
    """Follows tensors through the graph; every question is answered once."""

    def __init__(
        self, graph: Graph, weighted: Mapping[str, WeightedLayer], fenced: Collection[str]
    ) -> None:
        self.graph, self.weighted, self.fenced = graph, weighted, fenced
        self.kinds = {node.name: kind(node, graph) for node in graph.nodes}
        # the largest set in which every member reads and is read by integers
        self.arithmetic = {n.name for n in graph.nodes if self.kinds[n.name] == "arithmetic"}
        while True:
            self._read: dict[str, bool] = {}
            out = {n.name for n in graph.nodes if n.name in self.arithmetic and not self._fits(n)}
            if not out:
                break
            self.arithmetic -= out

    def placement(self, skipped: Mapping[str, str]) -> Placement:
        grids: dict[str, None] = {}
        operands: dict[str, None] = {}
        for node in self.graph.nodes:
            if not self._is_integer(node):
                continue
            for name in self._variables(node):
                grids[self._root(name)] = None
            if node.name in self.arithmetic:
                stored = (name for name in node.input if name in self.graph.constants)
                operands |= dict.fromkeys(stored)
            # a convolution in integers gives integers, also where float follows
            gives = node.name in self.arithmetic or node.op_type in ("Conv", "ConvTranspose")
            if gives or node.name in self.fenced:
                grids[self._behind_rectifier(node)] = None
        order = {name: i for i, name in enumerate((*self.graph.inputs, *self.graph.makers))}
        ordered = tuple(sorted(grids, key=order.__getitem__))
        shared = {
            name: self._root(name)
            for name in self.graph.makers
            if self._root(name) != name and self._root(name) in grids and self._is_read(name)
        }
        return Placement(
            layers=self.weighted,
            arithmetic=frozenset(self.arithmetic),
            grids=ordered,
            shared=shared,
            operands=tuple(operands),
            alone=frozenset(name for name in ordered if not self._is_made(name, inputs=False)),
            skipped=skipped,
            floats=self._floats(),
        )

    def _fits(self, node: Any) -> bool:
        made = all(self._is_made(name, inputs=True) for name in self._variables(node))
        return bool(made and self._is_read(node.output[0]))

    def _is_integer(self, node: Any) -> bool:
        return node.name in self.weighted or node.name in self.arithmetic

    def _variables(self, node: Any) -> Iterable[str]:
        """The inputs that carry activations."""
        names = node.input[:1] if node.name in self.weighted else node.input
        return (name for name in names if name and name not in self.graph.constants)

    def _root(self, tensor: str) -> str:
        """The tensor whose grid this one lies on: itself, unless values were only moved."""
        while (node := self.graph.makers.get(tensor)) is not None:
            if self.kinds[node.name] != "same_grid":
                break
            tensor = node.input[0]
        return tensor

    def _is_read(self, tensor: str) -> bool:
        """Whether somebody reads these values as integers."""
        if tensor not in self._read:
            self._read[tensor] = False  # a graph has no cycles
            self._read[tensor] = any(
                self._reads(node, tensor) for node in self.graph.users.get(tensor, [])
            )
        return self._read[tensor]

    def _reads(self, node: Any, tensor: str) -> bool:
        if self.kinds[node.name] in ("same_grid", "rectifier"):
            return node.input[0] == tensor and any(map(self._is_read, node.output))
        return self._is_integer(node) and tensor in self._variables(node)

    def _is_made(self, tensor: str, *, inputs: bool) -> bool:
        """Whether an integer layer makes these values; `inputs` says whether the caller counts."""
        root = self._root(tensor)
        node = self.graph.makers.get(root)
        if node is None:
            return inputs and self.graph.inputs.get(root) == _FLOAT
        if self.kinds[node.name] == "rectifier":
            return self._is_made(node.input[0], inputs=inputs)
        return self._is_integer(node)

    def _behind_rectifier(self, node: Any) -> str:
        """The tensor that the kernel of an integer node stores: a rectifier is part of it."""
        tensor: str = node.output[0]
        user = self.graph.only_user(tensor)
        if user is not None and self.kinds[user.name] == "rectifier":
            tensor = user.output[0]
        return tensor

    def _floats(self) -> dict[str, int]:
        """Operators that read what an integer node made and compute in float."""
        near = [
            node.op_type
            for node in self.graph.nodes
            if self.kinds[node.name] in ("other", "arithmetic")
            and not self._is_integer(node)
            and any(self._is_made(name, inputs=False) for name in filter(None, node.input))
        ]
        return dict(Counter(near).most_common())
