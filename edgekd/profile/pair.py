"""Measures two models in turns, and reads the layers of both."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgekd.backends._onnx.file import total_bytes
from edgekd.core.errors import RecipeError
from edgekd.core.hashing import sha256_file
from edgekd.profile.breakdown import Explained
from edgekd.profile.file import inputs_note, load_of, load_with
from edgekd.profile.together import connected, measure_on

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from edgekd.backends._contract import Feeds
    from edgekd.core.progress import Progress
    from edgekd.core.target import Target
    from edgekd.core.types import LayerRecord, Profile
    from edgekd.profile.measure import MeasureRule
    from edgekd.profile.transports._contract import Device, Load

    Run = tuple[Path, Target]

_NS_PER_US = 1000
#: of the layers; the one with the smallest sum counts, the others were interrupted more
_READINGS = 3


@dataclass(frozen=True, slots=True, eq=False)
class MeasuredModel:
    """One of two models that were timed in turns.

    Attributes:
        explained: Its layers and its median.
        profile: Every sample, and the conditions.
    """

    explained: Explained
    profile: Profile


def measure_pair(
    runs: tuple[Run, Run],
    rule: MeasureRule,
    *,
    shapes: Mapping[str, tuple[int, ...]],
    inputs_npz: Path | None,
    progress: Progress,
) -> tuple[Explained, Explained]:
    """Time two files, or one on two targets, interleaved; then read how each of them runs.

    Args:
        runs: File and target of each.
        rule: How long to time them.
        shapes: For axes that the models leave open.
        inputs_npz: The user's own inputs; random ones without.
        progress: Gets a bar and a line per model.

    Raises:
        RecipeError: Both are the same file on the same target, or a shape is missing or wrong.
        DataError: A file or the inputs are not usable.
        MissingDependencyError: A target's runtime is not installed.
        UnsupportedError: A runtime has the wrong version or refuses a model.
    """

    def loaded(run: Run, sha256: str, device: Device) -> Load:
        return load_of(run[0], sha256, run[1], device, shapes, inputs_npz)

    first, second = _measured(runs, rule, loaded, inputs_note(inputs_npz), progress)
    return first.explained, second.explained


def measure_pair_on(
    runs: tuple[Run, Run],
    feeds: Sequence[Feeds],
    rule: MeasureRule,
    *,
    note: str,
    progress: Progress,
) -> tuple[MeasuredModel, MeasuredModel]:
    """As `measure_pair`, on given feeds.

    Args:
        runs: File and target of each.
        feeds: Of one inference each; the timed runs rotate through them.
        rule: How long to time them.
        note: Where the feeds come from, for the conditions.
        progress: Gets a bar and a line per model.

    Raises:
        As `measure_pair`.
    """

    def loaded(run: Run, sha256: str, _: Device) -> Load:
        return load_with(run[0], sha256, run[1], feeds)

    return _measured(runs, rule, loaded, note, progress)


def _measured(
    runs: tuple[Run, Run],
    rule: MeasureRule,
    loaded: Callable[[Run, str, Device], Load],
    note: str,
    progress: Progress,
) -> tuple[MeasuredModel, MeasuredModel]:
    sizes = [total_bytes(path) for path, _ in runs]  # checks the files too
    hashes = [sha256_file(path) for path, _ in runs]
    if _same_file(runs, sizes, hashes) and runs[0][1] == runs[1][1]:
        raise RecipeError(
            "Both models are the same.",
            expected="two different files, or one file on two targets",
            got=f"{runs[0][0]} and {runs[1][0]}, both on {runs[0][1].name}",
            todo="give the float and the int8 file, or --target twice",
        )
    found = []
    with connected([target for _, target in runs]) as devices:
        for device, (_, target) in zip(devices, runs, strict=True):
            device.runtime(target, timing_only=True)
        loads = [
            loaded(run, sha256, device)
            for device, run, sha256 in zip(devices, runs, hashes, strict=True)
        ]
        profiles = measure_on(devices, loads, rule, inputs=note, progress=progress)
        for device, load, profile in zip(devices, loads, profiles, strict=True):
            title = f"{load.path.name} on {load.target.name}"
            progress.say(f"{title}: reading layers")
            layers = read_layers(device, load)
            found.append(MeasuredModel(explained(title, profile, layers), profile))
    return found[0], found[1]


def _same_file(runs: tuple[Run, Run], sizes: list[int], hashes: list[str]) -> bool:
    """Whether both paths hold the same model; equal files may name other data beside them."""
    (first, _), (second, _) = runs
    alone = sizes[0] == first.stat().st_size
    return first.samefile(second) or (alone and hashes[0] == hashes[1])


def read_layers(device: Device, load: Load) -> tuple[LayerRecord, ...]:
    """Every node as it runs on the device, in the reading that was interrupted least."""
    return min((device.layers(load) for _ in range(_READINGS)), key=_sum_us)


def _sum_us(layers: tuple[LayerRecord, ...]) -> float:
    return sum(layer.time_us or 0.0 for layer in layers)


def explained(title: str, profile: Profile, layers: tuple[LayerRecord, ...]) -> Explained:
    """One side of a comparison; the machine is the one that the profile was made on."""
    machine = profile.environment["machine"]
    return Explained(
        title=title,
        latency_us=statistics.median(profile.samples_ns) / _NS_PER_US,
        layers=layers,
        architecture=machine["architecture"],
        cpu_flags=tuple(machine["cpu_flags"]),
    )
