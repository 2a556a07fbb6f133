"""Where the time of a model goes: its layers by what they do, and beside another model's."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from edgekd.backends._onnx.qdq import file_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgekd.core.types import LayerRecord

Category = Literal["matmul int8", "matmul float", "reformat", "elementwise", "other"]
CATEGORIES: tuple[Category, ...] = (
    "matmul int8", "matmul float", "reformat", "elementwise", "other",
)  # fmt: skip
#: take values to another precision or layout without computing anything
_REFORMATS = frozenset({
    "Cast", "Convert", "DequantizeLinear", "FakeQuantize", "QuantizeLinear", "Reorder",
    "ReorderInput", "ReorderOutput", "Transpose", "XNNPACK DEQUANTIZE", "XNNPACK QUANTIZE",
    "XNNPACK TRANSPOSE",
})  # fmt: skip
#: one output value from the values at the same place; Subgraph: several of them as one kernel
_ELEMENTWISE = frozenset({
    "Add", "BatchNormalization", "Clip", "Div", "Eltwise", "Elu", "Erf", "Exp", "Gelu",
    "HardSigmoid", "HardSwish", "LeakyRelu", "Math", "Max", "Min", "Mul", "Neg", "PRelu", "Pow",
    "QLinearAdd", "QLinearLeakyRelu", "QLinearMul", "QLinearSigmoid", "QuickGelu", "Relu",
    "Sigmoid", "Sqrt", "Sub", "Subgraph", "Tanh", "XNNPACK ADD", "XNNPACK Clamp (NC)",
    "XNNPACK LOGISTIC", "XNNPACK MUL", "XNNPACK SUB",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Explained:
    """One model on one target, as it was measured.

    Attributes:
        title: File and target, for people.
        latency_us: Median of the timed calls from outside; the counters below were off.
        layers: Every node as it ran, with its mean time from the runtime's own counters, in the
            reading of several that was interrupted least.
        architecture: Of the machine, e.g. "x86_64".
        cpu_flags: Instruction sets of its CPU; empty where they could not be read.
    """

    title: str
    latency_us: float
    layers: tuple[LayerRecord, ...]
    architecture: str
    cpu_flags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Spent:
    """Nodes of one category and their time."""

    count: int
    time_us: float


@dataclass(frozen=True, slots=True)
class Breakdown:
    """Where the time of one model goes.

    Attributes:
        title: File and target.
        latency_us: Measured from outside.
        layers_us: Sum over all nodes.
        untimed: Nodes that the runtime gave no time for.
        categories: Every category.
        floats: Reason -> convolutions and matrix products in float kernels.
    """

    title: str
    latency_us: float
    layers_us: float
    untimed: int
    categories: Mapping[Category, Spent]
    floats: Mapping[str, Spent]


@dataclass(frozen=True, slots=True)
class Pair:
    """Nodes of both models that came from the same node of the file; None where one has none."""

    name: str
    first_us: float | None
    second_us: float | None
    first: str
    second: str


def category(layer: LayerRecord) -> Category:
    """What a node's time is spent on."""
    if layer.role == "matmul":
        return "matmul int8" if layer.precision == "int8" else "matmul float"
    if layer.role == "requantize" or layer.op in _REFORMATS:
        return "reformat"
    return "elementwise" if layer.op in _ELEMENTWISE else "other"


def spent(layers: list[LayerRecord]) -> Spent:
    """Their number and time; a node without a time counts as 0."""
    return Spent(len(layers), sum(layer.time_us or 0.0 for layer in layers))


def breakdown(model: Explained) -> Breakdown:
    """Where the time of one model goes."""
    layers = list(model.layers)
    floats = [layer for layer in layers if category(layer) == "matmul float"]
    return Breakdown(
        title=model.title,
        latency_us=model.latency_us,
        layers_us=spent(layers).time_us,
        untimed=sum(layer.time_us is None for layer in layers),
        categories={c: spent([x for x in layers if category(x) == c]) for c in CATEGORIES},
        floats={
            reason: spent([x for x in floats if why_float(x) == reason])
            for reason in dict.fromkeys(map(why_float, floats))
        },
    )


def why_float(layer: LayerRecord) -> str:
    """The reason of a convolution or matrix product that is not in an int8 kernel."""
    if layer.reason:
        return layer.reason
    if layer.op == "Subgraph":
        return "merged with its neighbours into one Subgraph kernel"
    return "no reason known"


def joined(first: tuple[LayerRecord, ...], second: tuple[LayerRecord, ...]) -> tuple[Pair, ...]:
    """Nodes of both by their name in the file; several nodes of one name add up."""
    sides = [_by_name(first), _by_name(second)]
    pairs = []
    for name in dict.fromkeys([*sides[0], *sides[1]]):
        times = [spent(side[name]).time_us if name in side else None for side in sides]
        ran = [_ran_in(side.get(name, [])) for side in sides]
        pairs.append(Pair(name, times[0], times[1], ran[0], ran[1]))
    return tuple(sorted(pairs, key=lambda p: -abs((p.second_us or 0.0) - (p.first_us or 0.0))))


def _by_name(layers: tuple[LayerRecord, ...]) -> dict[str, list[LayerRecord]]:
    found: dict[str, list[LayerRecord]] = {}
    for layer in layers:
        found.setdefault(file_name(layer.name), []).append(layer)
    return found


def _ran_in(layers: list[LayerRecord]) -> str:
    counts = Counter(f"{layer.op} {layer.precision}" for layer in layers)
    return ", ".join(name if n == 1 else f"{n} {name}" for name, n in counts.items()) or "-"
