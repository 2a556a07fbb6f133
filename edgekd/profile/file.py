"""Everything that can be measured of an ONNX file, also of one that edgekd never saw."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgekd.backends._contract import BACKENDS
from edgekd.backends._kernels import count_kernels
from edgekd.backends._onnx_file import total_bytes
from edgekd.backends._runtime import check_runtime
from edgekd.core.hashing import sha256_file
from edgekd.profile.inputs import batch_size, load_feeds, make_feeds, save_feeds
from edgekd.profile.measure import Subject, measure
from edgekd.profile.memory import peak_memory
from edgekd.profile.percentiles import percentiles
from edgekd.profile.sustained import sustain

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgekd.backends._contract import Feeds, Session
    from edgekd.core.progress import Progress
    from edgekd.core.target import Target
    from edgekd.core.types import KernelCount, LayerRecord, Profile
    from edgekd.profile.measure import MeasureRule
    from edgekd.profile.memory import MemoryFigure
    from edgekd.profile.percentiles import Percentiles
    from edgekd.profile.sustained import Sustained

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
        memory: Of a fresh process.
        kernels: Counted.
        layers: Every node as it runs.
        sustained: A long run after the burst; None where none was asked for.
    """

    path: Path
    target: Target
    profile: Profile
    percentiles: Percentiles
    size_bytes: int
    memory: MemoryFigure
    kernels: KernelCount
    layers: tuple[LayerRecord, ...]
    sustained: Sustained | None


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
        DeviceError: The process that measures memory died.
    """
    for target in targets:
        check_runtime(target)
    size, sha256 = total_bytes(path), sha256_file(path)
    note = inputs_note(inputs_npz)
    with ExitStack() as stack:
        subjects = [
            subject_of(path, sha256, target, shapes, inputs_npz, stack) for target in targets
        ]
        profiles = measure(subjects, rule, inputs=note, progress=progress)
        long_runs = [
            sustain(subject, sustained_s, inputs=note, progress=progress) if sustained_s else None
            for subject in subjects
        ]
    found = []
    for subject, profile, long_run in zip(subjects, profiles, long_runs, strict=True):
        progress.say(f"{subject.name}: reading kernels and memory")
        layers = layers_of(path, subject)
        found.append(
            FileProfile(
                path=path,
                target=subject.target,
                profile=profile,
                percentiles=percentiles(profile),
                size_bytes=size,
                memory=_memory(path, subject),
                kernels=count_kernels(layers),
                layers=layers,
                sustained=long_run,
            )
        )
    return found


def inputs_note(inputs_npz: Path | None) -> str:
    """Where the feeds come from, for the conditions of a measurement."""
    return f"from {inputs_npz.name}" if inputs_npz else f"random, seed {_SEED}"


def subject_of(
    path: Path,
    sha256: str,
    target: Target,
    shapes: Mapping[str, tuple[int, ...]],
    inputs_npz: Path | None,
    stack: ExitStack,
) -> Subject:
    """A file opened on a target with its feeds, to be timed; `stack` closes its session."""
    backend = BACKENDS.get(target.backend)()
    session = stack.enter_context(backend.open(path, target, threads=target.conditions.threads))
    feeds = _feeds(session, shapes, inputs_npz)
    return Subject(target.name, session, feeds, sha256, _with_batch(target, feeds[0]))


def _feeds(
    session: Session, shapes: Mapping[str, tuple[int, ...]], inputs_npz: Path | None
) -> list[Feeds]:
    if inputs_npz is not None:
        return load_feeds(inputs_npz, session.inputs)
    return make_feeds(session.inputs, shapes, seed=_SEED, count=_RANDOM_FEEDS)


def _with_batch(target: Target, feeds: Feeds) -> Target:
    """The target with the batch that the file is really run on."""
    conditions = target.conditions.model_copy(update={"batch_size": max(1, batch_size(feeds))})
    return target.model_copy(update={"conditions": conditions})


def layers_of(path: Path, subject: Subject) -> tuple[LayerRecord, ...]:
    """Every node of a timed file as it runs, in a session of its own."""
    backend = BACKENDS.get(subject.target.backend)()
    threads = subject.target.conditions.threads
    return tuple(backend.layers(path, subject.target, subject.feeds[0], threads=threads))


def _memory(path: Path, subject: Subject) -> MemoryFigure:
    with tempfile.TemporaryDirectory(prefix="edgekd-memory-") as folder:
        feeds = Path(folder) / "feeds.npz"
        save_feeds(feeds, subject.feeds[0])
        return peak_memory(path, subject.target, feeds)
