"""A float ONNX file in, the same graph with true integers out, and what stayed in float."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekd.core.errors import DataError, RecipeError
from edgekd.core.types import Affine, PerTensor
from edgekd.numerics.affine import SMALLEST_RANGE
from edgekd.quantize.observers import Observer
from edgekd.quantize.onnx_graph.calibration import observe
from edgekd.quantize.onnx_graph.graph import Graph
from edgekd.quantize.onnx_graph.kinds import clip_bounds, layers
from edgekd.quantize.onnx_graph.placement import place
from edgekd.quantize.onnx_graph.reading import opset, read_float
from edgekd.quantize.onnx_graph.tidy import tidy
from edgekd.quantize.onnx_graph.writing import write
from edgekd.quantize.rules import Layer, matching

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from edgekd.backends._contract import Feeds
    from edgekd.core.progress import Progress
    from edgekd.core.types import Scheme
    from edgekd.quantize.observers import RangeRule
    from edgekd.quantize.onnx_graph.placement import Placement

_BITS = 8
_SEED = 0


@dataclass(frozen=True, slots=True, eq=False)
class FloatGraph:
    """A float model made ready; computes what the file computes.

    Attributes:
        model: ``onnx.ModelProto`` after `tidy`.
        graph: A view of it.
        opset_was: Of the file.
        opset: Of `model`.
        folded: Convolutions that took in a BatchNormalization.
    """

    model: Any
    graph: Graph
    opset_was: int
    opset: int
    folded: tuple[str, ...]

    def serialized(self) -> bytes:
        """The model as bytes."""
        data: bytes = self.model.SerializeToString()
        return data


@dataclass(frozen=True, slots=True, eq=False)
class QuantizedGraph:
    """The same graph with integers.

    Attributes:
        model: Serialized.
        layers: Names of the convolutions and matrix products stored in int8.
        skipped: Those left in float -> reason. Never left out.
        floats: Other operators next to them that compute in float, and how many.
    """

    model: bytes
    layers: tuple[str, ...]
    skipped: Mapping[str, str]
    floats: Mapping[str, int]


@dataclass(frozen=True, slots=True, eq=False)
class Ranges:
    """Encodings of tensors, and those whose values were all the same.

    Attributes:
        grids: Tensor -> encoding.
        collapsed: Tensors that were zero on every sample: their range says nothing.
    """

    grids: Mapping[str, Affine]
    collapsed: frozenset[str]


def float_graph(path: Path) -> FloatGraph:
    """Read a float ONNX file and make it ready.

    Raises:
        DataError: The file is damaged, points outside its folder or has weights that are not
            finite.
        UnsupportedError: It is quantized already, or cannot be brought to an opset with Q/DQ.
    """
    model, was = read_float(path)
    folded = tidy(model)
    graph = Graph(model)
    for layer in layers(graph)[0]:
        for what, name in (("weight", layer.weight), ("bias", layer.bias)):
            value = graph.value(name) if name else None
            if value is not None and not np.isfinite(value.astype(np.float32)).all():
                raise DataError(
                    f"The {what} of the layer {layer.node.name!r} in {path} is not finite.",
                    expected="finite numbers",
                    todo="export the model again, or train it again with a lower learning rate",
                )
    return FloatGraph(model, graph, was, opset(model), tuple(folded))


def kept_by(source: FloatGraph, patterns: Sequence[str]) -> dict[str, str]:
    """Layer -> reason, of every layer that a pattern of the user's means.

    Raises:
        RecipeError: A pattern matches no layer.
    """
    named = [Layer(one.node.name, one.depthwise) for one in layers(source.graph)[0]]
    kept: dict[str, str] = {}
    for pattern in patterns:
        hits = matching(named, pattern)
        if not hits:
            raise RecipeError(
                f"--keep-float {pattern} matches no layer.",
                expected=f"one of {', '.join(layer.path for layer in named) or 'none'}",
                todo="use the layer's name, a wildcard, re: with a regular expression, or first, "
                "last, depthwise",
            )
        kept |= dict.fromkeys(hits, f"kept in float by the pattern {pattern!r}")
    return kept


def calibrate(
    source: FloatGraph,
    kept: Mapping[str, str],
    feeds: Sequence[Feeds],
    rule: RangeRule,
    scheme: Scheme,
    progress: Progress,
) -> Ranges:
    """Encodings of every tensor that may become integers, from what real inputs make of it.

    Raises:
        DataError: An activation is not finite on these inputs.
        UnsupportedError: Nothing can be quantized.
    """
    everything = {node.name for node in source.graph.nodes}
    placement = place(source.graph, kept, fenced=everything)
    observers = observe(source.model, placement.grids, feeds, seed=_SEED, progress=progress)
    for name in placement.operands:
        value = source.graph.value(name)
        assert value is not None
        observers[name] = Observer(name, seed=_SEED)
        observers[name].observe(value.astype(np.float32), share=1.0)
    collapsed = frozenset(name for name in placement.grids if _collapsed(observers[name]))
    return Ranges(
        {
            name: _encoding(source.graph, name, None if name in collapsed else seen, rule, scheme)
            for name, seen in observers.items()
        },
        collapsed,
    )


def quantize(
    source: FloatGraph,
    ranges: Ranges,
    kept: Mapping[str, str],
    scheme: Scheme,
    fenced: Collection[str] = frozenset(),
    *,
    weight_bits: int = _BITS,
) -> QuantizedGraph:
    """The graph with integers; a layer whose input never changes stays in float.

    Args:
        source: From `float_graph`.
        ranges: From `calibrate`, with the same or fewer layers kept in float.
        kept: Layer that has to stay in float -> reason.
        scheme: Of the target.
        fenced: See `place`.
        weight_bits: Of the codes that weights use, stored in 8.

    Raises:
        UnsupportedError: Nothing is left to quantize.
    """
    kept = dict(kept)
    while dead := _dead(placement := place(source.graph, kept, fenced), ranges.collapsed):
        kept |= dead
    written = write(source.model, source.graph, placement, ranges.grids, scheme, weight_bits)
    data: bytes = written.SerializeToString(deterministic=True)
    return QuantizedGraph(data, tuple(placement.layers), placement.skipped, placement.floats)


def _collapsed(seen: Observer) -> bool:
    """Zero, or nothing at all, on every sample."""
    return not max(-seen.low, seen.high) > SMALLEST_RANGE


def _encoding(
    graph: Graph, name: str, seen: Observer | None, rule: RangeRule, scheme: Scheme
) -> Affine:
    signed = scheme.activations == "int8"
    if seen is None:
        one, zero = np.array(1.0, np.float32), np.array(0, np.int32)
        return Affine(_BITS, signed, PerTensor(), one, zero)
    affine = seen.affine(rule, bits=_BITS, signed=signed)
    maker = graph.makers.get(name)
    if maker is None or maker.op_type != "Clip":
        return affine
    # a runtime drops a Clip whose bounds lie outside its grid, so no rounding may push it past
    steps = np.float32(affine.code_max - int(affine.zero_point))
    scale, high = affine.scale, clip_bounds(maker, graph)[1]
    while float(scale * steps) > high:
        scale = np.nextafter(scale, np.float32(0))
    return replace(affine, scale=np.asarray(scale, np.float32))


def _dead(placement: Placement, collapsed: frozenset[str]) -> dict[str, str]:
    """Layers about whose input the calibration samples say nothing."""
    reason = "its input is zero on every calibration sample"
    inputs = {name: layer.node.input[0] for name, layer in placement.layers.items()}
    return {n: reason for n, t in inputs.items() if placement.shared.get(t, t) in collapsed}
