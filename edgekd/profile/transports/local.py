"""This machine itself."""

from __future__ import annotations

import json
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from edgekd.backends._contract import BACKENDS
from edgekd.backends._runtime import check_runtime
from edgekd.core.config import Config
from edgekd.profile.agent.machine import memory_bytes, versions
from edgekd.profile.environment import environment
from edgekd.profile.inputs import save_feeds
from edgekd.profile.measure import Subject, measure
from edgekd.profile.memory import peak_memory
from edgekd.profile.sustained import sustain
from edgekd.profile.transports._answers import PACKAGES, Described, Environment
from edgekd.profile.transports._contract import TRANSPORTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from edgekd.backends._contract import Session
    from edgekd.core.progress import Progress
    from edgekd.core.target import Target
    from edgekd.core.types import LayerRecord, Profile, TensorSpec
    from edgekd.profile.measure import MeasureRule
    from edgekd.profile.memory import MemoryFigure
    from edgekd.profile.sustained import Sustained
    from edgekd.profile.transports._contract import Load


@TRANSPORTS.register
class Local(Config):
    """Opens files in this process; memory is measured in one of its own."""

    def connect(self) -> LocalDevice:
        """See the contract."""
        return LocalDevice()


class LocalDevice:
    """See the contract of `Device`; a file is opened once, however much is asked of it."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._sessions: dict[tuple[object, ...], Session] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._sessions.clear()
        self._stack.close()

    def describe(self) -> Described:
        """See the contract."""
        return Described(
            environment=Environment.model_validate(environment()),
            runtimes=versions(PACKAGES),
            free_bytes=shutil.disk_usage(tempfile.gettempdir()).free,
            memory_bytes=memory_bytes(),
        )

    def environment(self) -> dict[str, Any]:
        """See the contract."""
        return environment()

    def runtime(self, target: Target, *, timing_only: bool = False) -> str:
        """See the contract."""
        return check_runtime(target)

    def inputs(self, path: Path, target: Target) -> Sequence[TensorSpec]:
        """See the contract."""
        return self._session(path, target).inputs

    def measure(
        self, loads: Sequence[Load], rule: MeasureRule, *, inputs: str, progress: Progress
    ) -> list[Profile]:
        """See the contract."""
        subjects = [self._subject(load) for load in loads]
        return measure(subjects, rule, inputs=inputs, progress=progress)

    def sustain(
        self, load: Load, duration_s: float, *, inputs: str, progress: Progress
    ) -> Sustained:
        """See the contract."""
        return sustain(self._subject(load), duration_s, inputs=inputs, progress=progress)

    def run(self, load: Load) -> list[dict[str, NDArray[np.generic]]]:
        """See the contract."""
        session = self._session(load.path, load.target)
        return [session.run(feeds) for feeds in load.feeds]

    def memory(self, load: Load) -> MemoryFigure | None:
        """See the contract."""
        with tempfile.TemporaryDirectory(prefix="edgekd-memory-") as folder:
            feeds = Path(folder) / "feeds.npz"
            save_feeds(feeds, load.feeds[0])
            return peak_memory(load.path, load.target, feeds)

    def layers(self, load: Load) -> tuple[LayerRecord, ...]:
        """See the contract; in a session of its own, since tracing costs time."""
        backend = BACKENDS.get(load.target.backend)()
        threads = load.target.conditions.threads
        return tuple(backend.layers(load.path, load.target, load.feeds[0], threads=threads))

    def _subject(self, load: Load) -> Subject:
        session = self._session(load.path, load.target)
        return Subject(load.name, session, load.feeds, load.sha256, load.target)

    def _session(self, path: Path, target: Target) -> Session:
        options = json.dumps(target.options, sort_keys=True)
        key = (path, target.backend, target.processor, target.conditions.threads, options)
        if key not in self._sessions:
            backend = BACKENDS.get(target.backend)()
            session = backend.open(path, target, threads=target.conditions.threads)
            self._sessions[key] = self._stack.enter_context(session)
        return self._sessions[key]
