"""What every stage of a run can see: the recipe, its data and targets, and the run folder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgekd import __version__
from edgekd.core.hashing import sha256_json
from edgekd.core.target import load_target
from edgekd.distill.feed import resident_data
from edgekd.profile.together import connected
from edgekd.students._contract import NetSpec

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from edgekd.core.progress import Progress
    from edgekd.core.stages import Run
    from edgekd.core.target import Target
    from edgekd.recipe import Recipe
    from edgekd.tasks._contract import Data, Task


@dataclass(frozen=True, slots=True)
class Place:
    """What decides a measurement besides the file: a device, and what is installed there."""

    machine: dict[str, Any]
    versions: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Job:
    """A run in progress.

    Attributes:
        recipe: As validated.
        folder: Where the recipe's relative paths start.
        run: The open run folder.
        progress: Where to tell how far it is.
        data: Loaded and checked; train and validation in memory where they fit.
        task: What outputs mean.
        spec: What every network of this run accepts and gives.
        targets: In the recipe's order, as their CPUs honour them; their runtimes are installed.
        places: Where they run, by the transport that leads there.
        runtimes: Version of each target's runtime there, by the target's name.
        threads: Of training.
    """

    recipe: Recipe
    folder: Path
    run: Run
    progress: Progress
    data: Data
    task: Task
    spec: NetSpec
    targets: tuple[Target, ...]
    places: Mapping[str, Place]
    runtimes: Mapping[str, str]
    threads: int

    def place(self, target: Target) -> Place:
        """Where a target, or its float twin, runs."""
        return self.places[_way(target)]

    @property
    def seeds(self) -> range:
        """The seeds of the arms."""
        return range(self.recipe.seed, self.recipe.seed + self.recipe.seeds)

    def needs(self, **more: Any) -> dict[str, Any]:
        """What any training depends on, and more; a new edgekd may train another way."""
        return {
            "edgekd": __version__,
            "data": self.data.fingerprint,
            "threads": self.threads,
            **more,
        }


def _way(target: Target) -> str:
    return sha256_json(target.transport)


def open_job(recipe: Recipe, folder: Path, run: Run, progress: Progress) -> Job:
    """Check targets and load data before anything is trained.

    Raises:
        MissingDependencyError, UnsupportedError: A target's runtime is not here.
        DataError: The data is not usable.
        DeviceError: A target's device cannot be reached.
    """
    import torch

    asked = tuple(load_target(name) for name in recipe.targets)
    places, runtimes, targets = {}, {}, []
    with connected(asked) as devices:
        for device, target in zip(devices, asked, strict=True):
            runtimes[target.name] = device.runtime(target)
            if _way(target) not in places:
                found = device.environment()
                places[_way(target)] = Place(found["machine"], found["versions"])
            targets.append(target.on(places[_way(target)].machine["cpu_flags"]))
    threads = recipe.threads or len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    data = resident_data(recipe.data.load(folder))
    spec = NetSpec(input_shape=data.input_shape, outputs=recipe.task.output_width(data))
    return Job(
        recipe,
        folder,
        run,
        progress,
        data,
        recipe.task,
        spec,
        tuple(targets),
        places,
        runtimes,
        threads,
    )
