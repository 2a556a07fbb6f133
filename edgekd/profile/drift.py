"""The same file under two versions of a runtime: what it gives, how fast, and in which kernels."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekd.backends._kernels import count_kernels
from edgekd.backends._onnx.file import check
from edgekd.core.errors import DataError
from edgekd.core.hashing import sha256_file
from edgekd.profile.file import inputs_note, load_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from edgekd.core.progress import Progress
    from edgekd.core.target import Target
    from edgekd.core.types import KernelCount
    from edgekd.profile.measure import MeasureRule
    from edgekd.profile.transports._contract import Device, Load

_NS_PER_MS = 1e6


@dataclass(frozen=True, slots=True)
class Side:
    """One environment.

    Attributes:
        name: As the user called it.
        runtime: Version of the target's runtime there.
        environment: Machine, versions and state.
        medians_ms: Of each round.
        kernels: Counted.
    """

    name: str
    runtime: str
    environment: dict[str, Any]
    medians_ms: tuple[float, ...]
    kernels: KernelCount


@dataclass(frozen=True, slots=True)
class OutputDrift:
    """How far one output moved.

    Attributes:
        name: Of the output.
        largest: Largest absolute difference.
        mean_of_spread: Mean absolute difference over the standard deviation of the first's
            values; None where they do not vary.
        equal: Bit for bit.
    """

    name: str
    largest: float
    mean_of_spread: float | None
    equal: bool


@dataclass(frozen=True, slots=True)
class Drift:
    """Second against first.

    Attributes:
        first: One environment.
        second: The other.
        ratios: Median of the second over that of the first, round by round.
        outputs: Of the same inputs.
    """

    first: Side
    second: Side
    ratios: tuple[float, ...]
    outputs: tuple[OutputDrift, ...]

    @property
    def ratio(self) -> float:
        """Median over the rounds."""
        return statistics.median(self.ratios)


def drift(
    path: Path,
    target: Target,
    devices: Sequence[tuple[str, Device]],
    rule: MeasureRule,
    *,
    rounds: int,
    shapes: Mapping[str, tuple[int, ...]],
    inputs_npz: Path | None,
    progress: Progress,
) -> Drift:
    """Run one file in two environments, in turns.

    Args:
        path: The file.
        target: Backend, options and conditions, the same for both; its range of runtime versions
            is not asked for, since leaving it is what one may want to look at.
        devices: Two, each with a name.
        rule: How long each turn is timed.
        rounds: Turns of each; every round starts with the other one.
        shapes: For axes that the model leaves open.
        inputs_npz: The user's own inputs; random ones without.
        progress: Gets lines.

    Raises:
        DataError: The file or the inputs are not usable, or the outputs differ in shape.
        DeviceError: An environment lacks the runtime, or its process ended.
    """
    any_version = target.model_copy(update={"runtime": ""})
    sha256 = sha256_file(path)
    loads: list[Load] = []
    versions: list[str] = []
    for _, device in devices:
        versions.append(device.runtime(any_version, timing_only=True))
        loads.append(load_of(path, sha256, any_version, device, shapes, inputs_npz))
    outputs = _outputs(path, [device.run(load) for (_, device), load in _pairs(devices, loads)])
    medians: list[list[float]] = [[], []]
    for turn in range(rounds):
        for index in (0, 1) if turn % 2 == 0 else (1, 0):
            (_, device), load = devices[index], loads[index]
            note = inputs_note(inputs_npz)
            (profile,) = device.measure([load], rule, inputs=note, progress=progress)
            medians[index].append(statistics.median(profile.samples_ns) / _NS_PER_MS)
    sides = [
        Side(
            name=name,
            runtime=version,
            environment=device.environment(),
            medians_ms=tuple(times),
            kernels=count_kernels(device.layers(load)),
        )
        for (name, device), load, version, times in zip(
            devices, loads, versions, medians, strict=True
        )
    ]
    ratios = tuple(two / one for one, two in zip(*medians, strict=True))
    return Drift(sides[0], sides[1], ratios, outputs)


def _pairs(
    devices: Sequence[tuple[str, Device]], loads: Sequence[Load]
) -> list[tuple[tuple[str, Device], Load]]:
    return list(zip(devices, loads, strict=True))


def _outputs(
    path: Path, runs: Sequence[list[dict[str, NDArray[np.generic]]]]
) -> tuple[OutputDrift, ...]:
    found = []
    for name in check(path).outputs:
        one, two = (np.stack([outputs[name] for outputs in run]) for run in runs)
        if one.shape != two.shape:
            raise DataError(
                f"The output {name!r} has another shape in the second environment.",
                expected=str(one.shape[1:]),
                got=str(two.shape[1:]),
            )
        a, b = one.astype(np.float64), two.astype(np.float64)
        difference, spread = np.abs(a - b), float(a.std())
        found.append(
            OutputDrift(
                name=name,
                largest=float(difference.max(initial=0.0)),
                mean_of_spread=float(difference.mean()) / spread if spread > 0 else None,
                equal=bool(np.array_equal(one, two)),
            )
        )
    return tuple(found)
