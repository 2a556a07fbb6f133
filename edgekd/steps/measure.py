"""The figures: every file timed in one interleaved run, and its memory in a process of its own."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekd.profile.store import read_profile, write_profile
from edgekd.profile.together import connected, measure_on
from edgekd.profile.transports._contract import Load

if TYPE_CHECKING:
    from pathlib import Path

    from edgekd.backends._contract import Feeds
    from edgekd.core.types import Profile
    from edgekd.profile.transports._contract import Device
    from edgekd.steps.job import Job
    from edgekd.steps.ship import Shipment, Shipped

#: real test samples that the timed runs rotate through
_FEEDS = 32


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured of one file.

    Attributes:
        profile: Raw samples and conditions.
        path: Where the profile is stored.
        peak_memory_mib: Peak resident memory of a fresh process that loads and runs it; None
            where it cannot be measured.
        runtime_memory_mib: The same process before it loads the file.
    """

    profile: Profile
    path: Path
    peak_memory_mib: float | None
    runtime_memory_mib: float | None


def figures(job: Job, shipment: Shipment) -> dict[str, Figures]:
    """Time and weigh every file, by its name in the shipment."""
    everything = (*shipment.artifacts, *shipment.baselines)
    stage = job.run.stage(
        "profile",
        {
            "files": {s.name: s.artifact.sha256 for s in everything},
            "conditions": {s.name: conditions_of(s) for s in everything},
            "rule": job.recipe.profile.model_dump(mode="json"),
            "places": {s.name: asdict(job.place(s.target)) for s in everything},
        },
        lambda folder: _time(job, everything, folder),
    )
    found = {}
    for shipped in everything:
        path = stage.file(_file_name(shipped))
        memory = _weigh(job, shipped)
        found[shipped.name] = Figures(
            read_profile(path), path, memory["peak_mib"], memory["runtime_mib"]
        )
    return found


def _time(
    job: Job, everything: tuple[Shipped, ...], folder: Path
) -> tuple[dict[str, Any], list[str]]:
    with connected([s.target for s in everything]) as devices:
        profiles = measure_on(
            devices,
            [load_of(job, s, device) for s, device in zip(everything, devices, strict=True)],
            job.recipe.profile,
            inputs="real test samples",
            progress=job.progress,
        )
    names = [_file_name(shipped) for shipped in everything]
    for name, profile in zip(names, profiles, strict=True):
        write_profile(profile, folder / name)
    return {}, names


def _weigh(job: Job, shipped: Shipped) -> dict[str, Any]:
    def work(folder: Path) -> tuple[dict[str, Any], list[str]]:
        with connected([shipped.target]) as (device,):
            figure = device.memory(load_of(job, shipped, device))
        if figure is None:
            return {"peak_mib": None, "runtime_mib": None}, []
        return {"peak_mib": figure.peak_mib, "runtime_mib": figure.runtime_mib}, []

    needs = {
        "file": shipped.artifact.sha256,
        "conditions": conditions_of(shipped),
        "place": asdict(job.place(shipped.target)),
    }
    return job.run.stage(f"memory/{shipped.name}", needs, work).result


def load_of(job: Job, shipped: Shipped, device: Device) -> Load:
    """A file with real samples; a teacher that came as a file names its input itself."""
    name = shipped.artifact.inputs[0].name
    if shipped.role == "teacher":
        name = device.inputs(shipped.artifact.path, shipped.target)[0].name
    return Load(
        name=shipped.name,
        path=shipped.artifact.path,
        sha256=shipped.artifact.sha256,
        target=shipped.target,
        feeds=_feeds(job, shipped, name),
    )


def conditions_of(shipped: Shipped) -> dict[str, Any]:
    """What a target decides about a measurement: its conditions, and its runtime's options."""
    target = shipped.target
    return {**target.conditions.model_dump(), "options": target.options}


def _feeds(job: Job, shipped: Shipped, name: str) -> list[Feeds]:
    size = shipped.target.conditions.batch_size
    count = len(job.data.test)
    rows = np.arange(_FEEDS * size) % count
    inputs = job.data.test.batch(rows)
    return [{name: inputs[i : i + size]} for i in range(0, len(inputs), size)]


def _file_name(shipped: Shipped) -> str:
    return f"{shipped.name}.json"
