"""An int8 ONNX file made of a float one, all of whose integers its runtime really computes on."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgekd.backends._contract import BACKENDS
from edgekd.backends._kernels import count_kernels
from edgekd.backends._onnx.qdq import file_name
from edgekd.core.errors import RecipeError, UnsupportedError
from edgekd.core.hashing import sha256_file
from edgekd.core.target import load_target
from edgekd.export.file_parity import compare, session_runner
from edgekd.profile.file import load_with
from edgekd.profile.samples import RANDOM, random_samples, real_samples, refuse_shapes
from edgekd.profile.together import connected
from edgekd.quantize.onnx_graph import convert

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgekd.core.progress import Progress
    from edgekd.core.target import Target
    from edgekd.core.types import KernelCount
    from edgekd.profile.samples import Samples
    from edgekd.quantize.observers import RangeRule
    from edgekd.quantize.onnx_graph.convert import FloatGraph, QuantizedGraph

#: where the float file is opened, and its graph held against it
FLOAT_TARGET = "x86-onnxruntime-fp32"
_CONVERSION_SAMPLES = 2
#: rounding of a folded batch norm stays far above it
_CONVERSION_SNR_DB = 60.0
#: first a fence behind matrix products, then back to float
_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class QuantizeOptions:
    """What a user decides.

    Attributes:
        samples: To calibrate on, at most.
        ranges: How activation ranges are read off them.
        weight_bits: Of the codes that weights use; 7 leave room where a CPU adds in 16 bits.
        keep_float: Patterns of layers that stay in float.
        shapes: For axes that the model leaves open; with random data only.
        class_axis: Output -> axis along which its largest value is a decision.
        min_snr_db: Smallest signal-to-noise ratio of every output against the float model.
        min_agreement: Smallest fraction of equal decisions with it.
    """

    samples: int
    ranges: RangeRule
    weight_bits: int
    keep_float: tuple[str, ...]
    shapes: Mapping[str, tuple[int, ...]]
    class_axis: Mapping[str, int]
    min_snr_db: float | None
    min_agreement: float | None


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """An int8 file and how it came about.

    Attributes:
        source: The float file.
        artifact: The int8 file.
        target: Its target, as its CPU honours it.
        samples: What ranges were read from, and what the rest is compared on.
        graph: The float graph that was quantized.
        quantized: What became integers, and what did not.
        kernels: Of the artifact, as the runtime runs it.
        weight_bits: That codes of weights have at most.
    """

    source: Path
    artifact: Path
    target: Target
    samples: Samples
    graph: FloatGraph
    quantized: QuantizedGraph
    kernels: KernelCount
    weight_bits: int


def make(
    path: Path,
    data: str,
    target: Target,
    out: Path,
    options: QuantizeOptions,
    progress: Progress,
) -> Made:
    """Quantize one file, and leave in float what its runtime computes in float all the same.

    Raises:
        As `edgekd.steps.quantize_file.quantize_file`, but for parity.
    """
    if target.scheme is None:
        raise RecipeError(
            f"The target {target.name!r} is for float files.",
            expected="a target with an integer scheme, e.g. x86-onnxruntime-int8",
            todo="see `edgekd list targets`",
        )
    with connected([target]) as (device,):
        device.runtime(target)
        target = target.on(device.environment()["machine"]["cpu_flags"])
    assert target.scheme is not None
    weight_bits = min(options.weight_bits, target.scheme.weight_bits)
    samples = _samples(path, data, options)  # opens the file in its runtime first
    graph = convert.float_graph(path)
    _check_conversion(path, graph, samples, progress)
    kept = convert.kept_by(graph, options.keep_float)
    ranges = convert.calibrate(
        graph, kept, samples.calibration, options.ranges, target.scheme, progress
    )
    quantized, artifact, kernels = _fitted(
        graph, ranges, kept, target, out, samples, weight_bits, progress
    )
    return Made(path, artifact, target, samples, graph, quantized, kernels, weight_bits)


def _samples(path: Path, data: str, options: QuantizeOptions) -> Samples:
    target = load_target(FLOAT_TARGET)
    with BACKENDS.get(target.backend)().open(path, target, threads=1) as session:
        inputs = session.inputs
    if data == RANDOM:
        return random_samples(inputs, options.shapes, most=options.samples)
    refuse_shapes(options.shapes)
    return real_samples(Path(data), inputs, most=options.samples)


def _check_conversion(
    path: Path, source: FloatGraph, samples: Samples, progress: Progress
) -> None:
    """Converters change results without a word, so the graph is held against the file it is of."""
    target = load_target(FLOAT_TARGET)
    backend = BACKENDS.get(target.backend)()
    with tempfile.TemporaryDirectory(prefix="edgekd-float-") as folder:
        ready = backend.build(source.serialized(), target, Path(folder) / "float")
        with (
            backend.open(path, target, threads=1) as before,
            backend.open(ready, target, threads=1) as after,
        ):
            feeds = samples.calibration[:_CONVERSION_SAMPLES]
            found = compare(
                session_runner(before),
                session_runner(after),
                feeds,
                axes={},
                title="check opset",
                progress=progress,
            )
    for output in found:
        if not output.exact and (output.snr_db or 0.0) < _CONVERSION_SNR_DB:
            raise UnsupportedError(
                f"Bringing {path} from opset {source.opset_was} to {source.opset} changes what it "
                "computes.",
                expected=f"at least {_CONVERSION_SNR_DB:g} dB on every output",
                got=f"{output.snr_db or 0.0:.1f} dB on {output.name!r}",
                todo=f"export the model again with opset {source.opset} or newer",
            )


def _fitted(
    source: FloatGraph,
    ranges: convert.Ranges,
    kept: Mapping[str, str],
    target: Target,
    out: Path,
    samples: Samples,
    weight_bits: int,
    progress: Progress,
) -> tuple[QuantizedGraph, Path, KernelCount]:
    """The artifact, without integers in layers that the runtime computes in float all the same."""
    assert target.scheme is not None
    backend = BACKENDS.get(target.backend)()
    kept, fenced = dict(kept), set[str]()
    products = {n.name for n in source.graph.nodes if n.op_type == "MatMul"}
    for turn in range(_ROUNDS):
        quantized = convert.quantize(
            source, ranges, kept, target.scheme, fenced, weight_bits=weight_bits
        )
        progress.say(f"{out.name}: reading kernels")
        with (
            tempfile.TemporaryDirectory(prefix="edgekd-int8-") as folder,
            connected([target]) as (device,),
        ):
            tried = backend.build(quantized.model, target, Path(folder) / out.stem)
            load = load_with(tried, sha256_file(tried), target, samples.held_out[:1])
            kernels = count_kernels(device.layers(load))
        floats = {file_name(name): why for name, why in kernels.floats.items()}
        refused = {n: why for n, why in floats.items() if n in set(quantized.layers)}
        if not refused or turn == _ROUNDS - 1:
            break
        unfenced = (refused.keys() & products) - fenced
        fenced |= unfenced
        kept |= {
            name: f"{target.backend} computes it in float all the same: {why}"
            for name, why in refused.items()
            if name not in unfenced
        }
    artifact = backend.build(quantized.model, target, out.with_suffix(""))
    return quantized, artifact, kernels
