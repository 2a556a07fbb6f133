"""A float ONNX file from anywhere in; an int8 one out, compared with it, counted and timed."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgekd.backends._as_written import open_as_written
from edgekd.backends._contract import BACKENDS
from edgekd.backends._kernels import count_kernels
from edgekd.backends._onnx.file import total_bytes
from edgekd.backends._onnx.qdq import file_name
from edgekd.core.errors import RecipeError, UnsupportedError
from edgekd.core.hashing import sha256_file
from edgekd.core.target import load_target
from edgekd.export.file_parity import class_axes, compare, session_runner
from edgekd.profile.explain import explain
from edgekd.profile.file import load_with
from edgekd.profile.pair import measure_pair_on
from edgekd.profile.percentiles import percentiles
from edgekd.profile.samples import RANDOM, random_samples, real_samples, refuse_shapes
from edgekd.profile.store import compare as compare_profiles
from edgekd.profile.together import connected
from edgekd.quantize.onnx_graph import convert

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from edgekd.backends._contract import Feeds, Session
    from edgekd.core.progress import Progress
    from edgekd.core.target import Target
    from edgekd.core.types import KernelCount, Profile
    from edgekd.export.file_parity import OutputParity, Runner
    from edgekd.profile.explain import Explanation
    from edgekd.profile.measure import MeasureRule
    from edgekd.profile.percentiles import Percentiles
    from edgekd.profile.samples import Samples
    from edgekd.profile.store import Comparison
    from edgekd.quantize.observers import RangeRule
    from edgekd.quantize.onnx_graph.convert import FloatGraph, QuantizedGraph

_FLOAT_TARGET = "x86-onnxruntime-fp32"
_TIMED_FEEDS = 8
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


@dataclass(frozen=True, slots=True)
class Ladder:
    """Where differences come from, output by output.

    Attributes:
        rounding: The artifact computed node by node against the float file: what integers cost.
        runtime: The artifact in its runtime against itself computed node by node: what the
            runtime adds.
        total: The artifact in its runtime against the float file.
    """

    rounding: tuple[OutputParity, ...]
    runtime: tuple[OutputParity, ...]
    total: tuple[OutputParity, ...]


@dataclass(frozen=True, slots=True, eq=False)
class QuantizedFile:
    """What came of one file on one target.

    Attributes:
        made: The artifact and how it came about.
        ladder: What it computes; on random data only its `runtime` means anything.
        bytes_before: Of the float file and the data beside it.
        bytes_after: Of the artifact.
        profiles: Of the float file and the artifact, interleaved.
        latencies: Percentiles of both.
        speedup: Ratios of both.
        explanation: Where the time of both goes.
        failures: What is out of tolerance, in words.
    """

    made: Made
    ladder: Ladder
    bytes_before: int
    bytes_after: int
    profiles: tuple[Profile, Profile]
    latencies: tuple[Percentiles, Percentiles]
    speedup: Comparison
    explanation: Explanation
    failures: tuple[str, ...]


def quantize_file(
    path: Path,
    data: str,
    target: Target,
    out: Path,
    options: QuantizeOptions,
    rule: MeasureRule,
    progress: Progress,
) -> QuantizedFile:
    """Quantize, compare, count and time one file.

    Args:
        path: The float ONNX file.
        data: Path of real samples, or the word "random".
        target: An int8 one.
        out: Where the artifact goes, ending in .onnx, or in what the runtime calls its own files.
        options: See there.
        rule: How long both files are timed.
        progress: Gets bars and lines.

    Raises:
        DataError: The file or the data are not usable.
        RecipeError: An option is wrong, or the target is not for integers.
        MissingDependencyError: A runtime is not installed.
        UnsupportedError: The model is quantized already, has nothing to quantize, or the runtime
            refuses it.
        ParityError: The artifact gives numbers that are not finite.
    """
    made = make(path, data, target, out, options, progress)
    ladder = _ladder(made, options, progress)
    first, second = measure_pair_on(
        ((path, target), (made.artifact, target)),
        made.samples.held_out[:_TIMED_FEEDS],
        rule,
        note=made.samples.note,
        progress=progress,
    )
    return QuantizedFile(
        made=made,
        ladder=ladder,
        bytes_before=total_bytes(path),
        bytes_after=made.artifact.stat().st_size,
        profiles=(first.profile, second.profile),
        latencies=(percentiles(first.profile), percentiles(second.profile)),
        speedup=compare_profiles(first.profile, second.profile),
        explanation=explain(first.explained, second.explained),
        failures=_failures(ladder, made, options),
    )


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
        As `quantize_file`, but for parity.
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
    target = load_target(_FLOAT_TARGET)
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
    target = load_target(_FLOAT_TARGET)
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


def _written(made: Made, folder: Path, threads: int) -> Session:
    """The ONNX file that the artifact was built from, which some runtimes compile."""
    path = folder / "int8.onnx"
    path.write_bytes(made.quantized.model)
    return open_as_written(path, threads=threads)


def _ladder(made: Made, options: QuantizeOptions, progress: Progress) -> Ladder:
    plain, sha256 = load_target(_FLOAT_TARGET), sha256_file(made.artifact)
    threads = plain.conditions.threads
    with (
        tempfile.TemporaryDirectory(prefix="edgekd-written-") as folder,
        BACKENDS.get(plain.backend)().open(made.source, plain, threads=threads) as source,
        _written(made, Path(folder), threads) as written,
        connected([made.target]) as (device,),
    ):
        axes = class_axes(source.outputs, options.class_axis)

        def on_device(feeds: Sequence[Feeds]) -> list[dict[str, NDArray[np.generic]]]:
            return device.run(load_with(made.artifact, sha256, made.target, feeds))

        def rung(expected: Runner, got: Runner, title: str) -> tuple[OutputParity, ...]:
            feeds = made.samples.held_out
            return compare(expected, got, feeds, axes=axes, title=title, progress=progress)

        first, second = session_runner(source), session_runner(written)
        return Ladder(
            rounding=rung(first, second, "compare: float, as written"),
            runtime=rung(second, on_device, "compare: as written, runtime"),
            total=rung(first, on_device, "compare: float, runtime"),
        )


def _failures(ladder: Ladder, made: Made, options: QuantizeOptions) -> tuple[str, ...]:
    found = [
        f"{added.name!r}: {made.target.backend} does not compute what the file says: its results "
        f"differ by {_percent(added.mean_abs_share)} of their spread, rounding alone by "
        f"{_percent(rounding.mean_abs_share)}; if its CPU has no VNNI, try --weight-bits 7"
        for added, rounding in zip(ladder.runtime, ladder.rounding, strict=True)
        if not added.within(made.target.tolerance) and not _less(added, rounding)
    ]
    for output in ladder.total if made.samples.real else ():
        snr = options.min_snr_db
        if snr is not None and not output.exact and (output.snr_db or 0.0) < snr:
            found.append(f"{output.name!r}: {output.snr_db or 0.0:.1f} dB, wanted {snr:g} dB")
        agreed = options.min_agreement
        if agreed is not None and output.agreement is not None and output.agreement < agreed:
            found.append(f"{output.name!r}: {output.agreement:.2%} equal, wanted {agreed:.2%}")
    return tuple(found)


def _less(added: OutputParity, rounding: OutputParity) -> bool:
    """Whether a runtime adds less than the rounding that its own rounding may redraw.

    A value between two codes may fall to either side in a kernel that sums in another order, and
    each layer passes that on; what comes of it is as large as rounding at most.
    """
    if added.mean_abs_share is None or rounding.mean_abs_share is None:
        return False
    return added.mean_abs_share <= rounding.mean_abs_share


def _percent(share: float | None) -> str:
    return "more than all" if share is None else f"{share:.1%}"
