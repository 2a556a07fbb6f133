"""The figures: every file timed in one interleaved run, and its memory in a process of its own."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekd.backends._contract import BACKENDS
from edgekd.profile.environment import environment
from edgekd.profile.measure import Subject, measure
from edgekd.profile.memory import peak_memory
from edgekd.profile.store import read_profile, write_profile

if TYPE_CHECKING:
    from pathlib import Path

    from edgekd.backends._contract import Feeds
    from edgekd.core.types import Profile
    from edgekd.steps.job import Job
    from edgekd.steps.ship import Shipment, Shipped

#: real test samples that the timed runs rotate through
_FEEDS = 32
_MEMORY_FEEDS = "feeds.npz"


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured of one file.

    Attributes:
        profile: Raw samples and conditions.
        path: Where the profile is stored.
        peak_memory_mib: Peak resident memory of a fresh process that loads and runs it.
        runtime_memory_mib: The same process before it loads the file.
    """

    profile: Profile
    path: Path
    peak_memory_mib: float
    runtime_memory_mib: float


def figures(job: Job, shipment: Shipment) -> dict[str, Figures]:
    """Time and weigh every file, by its name in the shipment."""
    everything = (*shipment.artifacts, *shipment.baselines)
    where = environment()
    stage = job.run.stage(
        "profile",
        {
            "files": {s.name: s.artifact.sha256 for s in everything},
            "conditions": {s.name: _conditions(s) for s in everything},
            "rule": job.recipe.profile.model_dump(mode="json"),
            "machine": where["machine"],
            "versions": where["versions"],
        },
        lambda folder: _time(job, everything, folder),
    )
    found = {}
    for shipped in everything:
        path = stage.file(_file_name(shipped))
        memory = _weigh(job, shipped, where)
        found[shipped.name] = Figures(
            read_profile(path), path, memory["peak_mib"], memory["runtime_mib"]
        )
    return found


def _time(
    job: Job, everything: tuple[Shipped, ...], folder: Path
) -> tuple[dict[str, Any], list[str]]:
    with ExitStack() as stack:
        subjects = []
        for shipped in everything:
            backend = BACKENDS.get(shipped.target.backend)()
            session = stack.enter_context(
                backend.open(
                    shipped.artifact.path,
                    shipped.target,
                    threads=shipped.target.conditions.threads,
                )
            )
            feeds = _feeds(job, shipped, session.inputs[0].name)
            subjects.append(
                Subject(
                    name=shipped.name,
                    session=session,
                    feeds=feeds,
                    artifact_sha256=shipped.artifact.sha256,
                    target=shipped.target,
                )
            )
        profiles = measure(
            subjects, job.recipe.profile, inputs="real test samples", progress=job.progress
        )
    names = [_file_name(shipped) for shipped in everything]
    for name, profile in zip(names, profiles, strict=True):
        write_profile(profile, folder / name)
    return {}, names


def _weigh(job: Job, shipped: Shipped, where: dict[str, Any]) -> dict[str, Any]:
    def work(folder: Path) -> tuple[dict[str, Any], list[str]]:
        name = shipped.artifact.inputs[0].name if shipped.role != "teacher" else _input(shipped)
        np.savez(folder / _MEMORY_FEEDS, allow_pickle=False, **_feeds(job, shipped, name)[0])
        figure = peak_memory(shipped.artifact.path, shipped.target, folder / _MEMORY_FEEDS)
        return {"peak_mib": figure.peak_mib, "runtime_mib": figure.runtime_mib}, []

    needs = {
        "file": shipped.artifact.sha256,
        "conditions": _conditions(shipped),
        "machine": where["machine"],
        "versions": where["versions"],
    }
    return job.run.stage(f"memory/{shipped.name}", needs, work).result


def _conditions(shipped: Shipped) -> dict[str, Any]:
    """What a target decides about a measurement: its conditions, and its runtime's options."""
    target = shipped.target
    return {**target.conditions.model_dump(), "options": target.options}


def _input(shipped: Shipped) -> str:
    """A teacher that came as a file names its input itself."""
    backend = BACKENDS.get(shipped.target.backend)()
    with backend.open(shipped.artifact.path, shipped.target, threads=1) as session:
        return session.inputs[0].name


def _feeds(job: Job, shipped: Shipped, name: str) -> list[Feeds]:
    size = shipped.target.conditions.batch_size
    count = len(job.data.test)
    rows = np.arange(_FEEDS * size) % count
    inputs = job.data.test.batch(rows)
    return [{name: inputs[i : i + size]} for i in range(0, len(inputs), size)]


def _file_name(shipped: Shipped) -> str:
    return f"{shipped.name}.json"
