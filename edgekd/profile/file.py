"""Everything that can be measured of an ONNX file, also of one that edgekd never saw."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgekd.backends._kernels import count_kernels
from edgekd.backends._onnx.file import total_bytes
from edgekd.core.hashing import sha256_file
from edgekd.profile.inputs import batch_size, load_feeds, make_feeds
from edgekd.profile.percentiles import percentiles
from edgekd.profile.sustained import BrokenOffError
from edgekd.profile.together import connected, measure_on
from edgekd.profile.transports._contract import Load

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from edgekd.backends._contract import Feeds
    from edgekd.core.progress import Progress
    from edgekd.core.target import Target
    from edgekd.core.types import KernelCount, LayerRecord, Profile
    from edgekd.profile.measure import MeasureRule
    from edgekd.profile.memory import MemoryFigure
    from edgekd.profile.percentiles import Percentiles
    from edgekd.profile.sustained import Sustained
    from edgekd.profile.transports._contract import Device

_RANDOM_FEEDS = 4
_SEED = 0


@dataclass(frozen=True, slots=True)
class FileProfile:
    """One file on one target.

    Attributes:
        path: The file.
        target: Its target.
        profile: Raw samples and conditions.
        percentiles: Computed from the profile.
        size_bytes: Of the file and the data files beside it.
        memory: Of a fresh process there; None where none was measured.
        kernels: Counted.
        layers: Every node as it runs.
        sustained: A long run after the burst, as far as it came; None where none was asked for
            or nothing of it came.
        failure: Why the long run did not come to its end; None where it did.
    """

    path: Path
    target: Target
    profile: Profile
    percentiles: Percentiles
    size_bytes: int
    memory: MemoryFigure | None
    kernels: KernelCount
    layers: tuple[LayerRecord, ...]
    sustained: Sustained | None
    failure: BrokenOffError | None


def profile_file(
    path: Path,
    targets: Sequence[Target],
    rule: MeasureRule,
    *,
    shapes: Mapping[str, tuple[int, ...]],
    inputs_npz: Path | None,
    sustained_s: float = 0,
    progress: Progress,
) -> list[FileProfile]:
    """Measure an ONNX file on every target, interleaved, so that the targets compare.

    Args:
        path: The file; it is loaded as it is, nothing is converted.
        targets: Where to run it.
        rule: How long to time it.
        shapes: For axes that the model leaves open.
        inputs_npz: The user's own inputs; random ones without.
        sustained_s: Seconds of a long run on each target after the burst; 0 for none.
        progress: Gets a bar and a line per target.

    Raises:
        DataError: The file or the inputs are not usable.
        RecipeError: A shape is missing or wrong.
        MissingDependencyError: A target's runtime is not installed.
        UnsupportedError: A runtime has the wrong version or refuses the model.
        DeviceError: A device cannot be reached, or the process that measures memory died. One
            that is lost in the long run is told in `failure`, and the burst is kept.
    """
    size, sha256 = total_bytes(path), sha256_file(path)
    with connected(targets) as devices:
        for device, target in zip(devices, targets, strict=True):
            device.runtime(target, timing_only=True)
        loads = [
            load_of(path, sha256, target, device, shapes, inputs_npz)
            for device, target in zip(devices, targets, strict=True)
        ]
        note = inputs_note(inputs_npz)
        profiles = measure_on(devices, loads, rule, inputs=note, progress=progress)
        found = []
        for device, load, profile in zip(devices, loads, profiles, strict=True):
            progress.say(f"{load.name}: reading kernels and memory")
            layers = device.layers(load)
            one = FileProfile(
                path=path,
                target=load.target,
                profile=profile,
                percentiles=percentiles(profile),
                size_bytes=size,
                memory=device.memory(load),
                kernels=count_kernels(layers),
                layers=layers,
                sustained=None,
                failure=None,
            )
            found.append(one)
        if sustained_s:  # last, since a device is hot afterwards, or out of reach
            for i, (device, load) in enumerate(zip(devices, loads, strict=True)):
                found[i] = _with_long_run(found[i], device, load, sustained_s, note, progress)
    return found


def _with_long_run(
    one: FileProfile,
    device: Device,
    load: Load,
    duration_s: float,
    note: str,
    progress: Progress,
) -> FileProfile:
    try:
        run = device.sustain(load, duration_s, inputs=note, progress=progress)
    except BrokenOffError as e:
        return replace(one, sustained=e.so_far, failure=e)
    return replace(one, sustained=run)


def inputs_note(inputs_npz: Path | None) -> str:
    """Where the feeds come from, for the conditions of a measurement."""
    return f"from {inputs_npz.name}" if inputs_npz else f"random, seed {_SEED}"


def load_of(
    path: Path,
    sha256: str,
    target: Target,
    device: Device,
    shapes: Mapping[str, tuple[int, ...]],
    inputs_npz: Path | None,
) -> Load:
    """A file with its feeds, to be timed on a device under the batch that it really runs on."""
    specs = device.inputs(path, target)
    if inputs_npz is not None:
        feeds = load_feeds(inputs_npz, specs)
    else:
        feeds = make_feeds(specs, shapes, seed=_SEED, count=_RANDOM_FEEDS)
    return load_with(path, sha256, target, feeds)


def load_with(path: Path, sha256: str, target: Target, feeds: Sequence[Feeds]) -> Load:
    """A file with given feeds, under the batch that they hold."""
    batch = {"batch_size": max(1, batch_size(feeds[0]))}
    conditions = target.conditions.model_copy(update=batch)
    under = target.model_copy(update={"conditions": conditions})
    return Load(target.name, path, sha256, under, feeds)
