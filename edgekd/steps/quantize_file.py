"""A float ONNX file from anywhere in; an int8 one out, compared with it, counted and timed."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgekd.backends._as_written import open_as_written
from edgekd.backends._contract import BACKENDS
from edgekd.backends._onnx.file import total_bytes
from edgekd.core.hashing import sha256_file
from edgekd.core.target import load_target
from edgekd.export.file_parity import class_axes, compare, session_runner
from edgekd.profile.explain import explain
from edgekd.profile.file import load_with
from edgekd.profile.pair import measure_pair_on
from edgekd.profile.percentiles import percentiles
from edgekd.profile.store import compare as compare_profiles
from edgekd.profile.together import connected
from edgekd.steps.integer_file import FLOAT_TARGET, make

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from edgekd.backends._contract import Feeds, Session
    from edgekd.core.progress import Progress
    from edgekd.core.target import Target
    from edgekd.core.types import Profile
    from edgekd.export.file_parity import OutputParity, Runner
    from edgekd.profile.explain import Explanation
    from edgekd.profile.measure import MeasureRule
    from edgekd.profile.percentiles import Percentiles
    from edgekd.profile.store import Comparison
    from edgekd.steps.integer_file import Made, QuantizeOptions

_TIMED_FEEDS = 8
#: weights of no more bits never overflow where a CPU adds int8 products in 16 bits
_SAFE_BITS = 7


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


def _written(made: Made, folder: Path, threads: int) -> Session:
    """The ONNX file that the artifact was built from, which some runtimes compile."""
    path = folder / "int8.onnx"
    path.write_bytes(made.quantized.model)
    return open_as_written(path, threads=threads)


def _ladder(made: Made, options: QuantizeOptions, progress: Progress) -> Ladder:
    plain, sha256 = load_target(FLOAT_TARGET), sha256_file(made.artifact)
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
    may_overflow = made.weight_bits > _SAFE_BITS
    advice = "; if its CPU has no VNNI, try --weight-bits 7" if may_overflow else ""
    found = [
        f"{added.name!r}: {made.target.backend} does not compute what the file says: its results "
        f"differ by {_percent(added.mean_abs_share)} of their spread, rounding alone by "
        f"{_percent(rounding.mean_abs_share)}{advice}"
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
