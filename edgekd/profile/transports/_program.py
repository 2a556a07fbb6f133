"""A runtime that is a program of the device: called through the agent, believed by its reports."""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekd.backends._contract import BACKENDS, ProgramBackend
from edgekd.backends._feeds import check_feeds
from edgekd.core.config import Config
from edgekd.core.errors import UnsupportedError
from edgekd.core.hashing import sha256_bytes, sha256_json
from edgekd.core.types import Profile
from edgekd.profile.agent.arrays import pack
from edgekd.profile.agent.timing import NS_PER_S, finished
from edgekd.profile.measure import conditions
from edgekd.profile.transports import _answers as answers
from edgekd.profile.transports._connection import Connection, File
from edgekd.profile.transports._stream import NonsenseError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from edgekd.backends._contract import Feeds, Job, Jobs
    from edgekd.core.progress import Progress
    from edgekd.core.target import Target
    from edgekd.core.types import LayerRecord
    from edgekd.profile.agent.timing import Rule
    from edgekd.profile.measure import MeasureRule
    from edgekd.profile.transports._connection import Link
    from edgekd.profile.transports._contract import Load

#: an engine takes minutes to build, on a small board many
_BUILD_S = 1800.0
_REPORT_BYTES = 64 << 20
_PILOT_RUNS = 20
#: calls that the samples of one file are spread over, and the longest that one is to take
_CALLS = 5
_CALL_NS = 4 * NS_PER_S


class Called(Config):
    """How a call ended: its exit code, the end of what it said, and whether it was the build."""

    code: int
    said: str
    built: bool


class Program:
    """A program on a device.

    Args:
        connection: To the agent there.
        link: Its link, for errors and time-outs.
        backend: What it is called with.
    """

    def __init__(self, connection: Connection, link: Link, backend: ProgramBackend) -> None:
        self.backend = backend
        self._connection, self._link = connection, link
        self._version = ""

    def version(self) -> str:
        """What it says itself.

        Raises:
            DeviceError: It is not there, or says something else.
        """
        if not self._version:
            found, _ = self._ask({"arguments": ["--help"], "reports": []}, {}, [], 0)
            self._version = self.backend.told_version(found.said)
        return self._version

    def opened(self, load: Load) -> OpenedProgram:
        """A file, to be run there.

        Raises:
            UnsupportedError, DataError: The program would refuse or misread it, or the feeds are
                none of it.
        """
        jobs = self.backend.jobs(load.path, load.target, self.version())
        for feeds in load.feeds:
            check_feeds(jobs.inputs, feeds, source=f"the feeds for {load.path.name}")
        return OpenedProgram(self, jobs, load)

    @contextmanager
    def call(self, jobs: Jobs, job: Job, feeds: Feeds) -> Iterator[Path]:
        """A folder with the reports of one call; the engine is built before the first.

        Raises:
            UnsupportedError, DeviceError: The program refused, died or is not there.
        """
        model, build = jobs.model(), jobs.build()
        sha256 = sha256_bytes(model)
        request = {
            "arguments": job.arguments,
            "reports": list(job.reports),
            "build": {
                "arguments": build,
                "model": jobs.model_file,
                "result": jobs.result,
                "key": sha256_json([sha256, build]),
            },
        }
        inputs = {file: np.ascontiguousarray(feeds[name]) for name, file in jobs.files.items()}
        files = [File(jobs.model_file, sha256, model)]
        found, reports = self._ask(request, inputs, files, len(job.reports) * _REPORT_BYTES)
        arguments = job.arguments if found.built else build
        self.backend.check_end(found.code, found.said, arguments, place=self._link.place)
        with tempfile.TemporaryDirectory(prefix="edgekd-reports-") as folder:
            for name in job.reports:
                (Path(folder) / name).write_bytes(reports[name].tobytes())
            yield Path(folder)

    def _ask(
        self,
        request: Mapping[str, Any],
        inputs: Mapping[str, NDArray[np.generic]],
        files: Sequence[File],
        most_bytes: int,
    ) -> tuple[Called, dict[str, NDArray[np.generic]]]:
        heads, bodies = pack(inputs)
        asked = {
            "task": "call",
            "program": self.backend.program,
            "folders": list(self.backend.folders),
            "models": [{"files": [[f.name, f.sha256] for f in files]}] if files else [],
            "arrays": heads,
            **request,
        }

        def read(
            answer: dict[str, Any], body: bytes
        ) -> tuple[Called, dict[str, NDArray[np.generic]]]:
            reports = answers.arrays_of(answer, body)
            called: Called = answers.plain(Called, answer)
            if called.built and not called.code and sorted(reports) != sorted(request["reports"]):
                raise NonsenseError("reports of other names")
            said = "".join(c if c.isprintable() or c == "\n" else " " for c in called.said)
            return called.model_copy(update={"said": said}), reports

        return self._connection.work(
            asked,
            b"".join(bodies),
            {f.sha256: f for f in files},
            limit_s=self._link.timeout_s + (_BUILD_S if files else 0.0),
            most_bytes=most_bytes,
            read=read,
        )


class OpenedProgram:
    """One file under its program.

    Attributes:
        samples_ns: So far.
    """

    def __init__(self, program: Program, jobs: Jobs, load: Load) -> None:
        self._program, self._jobs, self._load = program, jobs, load
        self._feeds = load.feeds
        self._turn = 0
        self.samples_ns: list[int] = []

    def run(self) -> list[dict[str, NDArray[np.generic]]]:
        """All outputs of every inference; a call for each."""
        found = []
        for feeds in self._feeds:
            with self._program.call(self._jobs, self._jobs.run(), feeds) as folder:
                found.append(self._jobs.read_run(folder))
        return found

    def layers(self) -> Sequence[LayerRecord]:
        """Every layer, timed by the program."""
        with self._program.call(self._jobs, self._jobs.explain(), self._feeds[0]) as folder:
            return self._jobs.read_layers(folder)

    def time(self, runs: int) -> list[int]:
        """So many inferences of the program's own clock, on the next of the feeds; ns.

        Raises:
            NonsenseError: They took longer than the call.
        """
        feeds = self._feeds[self._turn % len(self._feeds)]
        self._turn += 1
        start_s = time.perf_counter()
        with self._program.call(self._jobs, self._jobs.time(runs), feeds) as folder:
            samples = self._jobs.read_times(folder, at_least=runs)
        elapsed_ns = (time.perf_counter() - start_s) * NS_PER_S
        if sum(samples) > elapsed_ns * answers.CLOCKS:
            raise NonsenseError("samples that took longer together than the call")
        return samples

    def profile(
        self, rule: MeasureRule, where: dict[str, Any], *, inputs: str, others: int
    ) -> Profile:
        """The samples, under conditions that tell whose clock gave them."""
        load, backend = self._load, self._program.backend
        plain = conditions(load.target, rule, inputs=inputs, others=others)
        own = {"clock": backend.clock, "warm_up": backend.warm_up}
        versions = {**where["versions"], backend.program: self._program.version()}
        return Profile(
            artifact_sha256=load.sha256,
            target=load.target.name,
            conditions=plain.model_copy(update=own),
            samples_ns=tuple(self.samples_ns),
            environment={**where, "versions": versions},
            source="measured",
        )


def time_in_turns(
    opened: Sequence[OpenedProgram], rule: Rule, title: str, progress: Progress
) -> None:
    """Fill the samples of every file, call by call in turns, until the rule is kept for all."""
    medians_ns = [max(1.0, statistics.median(one.time(_PILOT_RUNS))) for one in opened]
    wanted = [max(rule.needed, math.ceil(rule.min_ns / median)) for median in medians_ns]
    calls = max(
        _CALLS,
        *(math.ceil(n * m / _CALL_NS) for n, m in zip(wanted, medians_ns, strict=True)),
    )
    with progress.bar(title, calls) as bar:
        turn = 0
        while left := [i for i, one in enumerate(opened) if not _ended(one, rule)]:
            first = turn % len(left)
            for i in left[first:] + left[:first]:
                opened[i].samples_ns += opened[i].time(max(rule.block, wanted[i] // calls + 1))
            turn += 1
            if turn <= calls:
                bar.advance(note=f"{len(left)} to go")


def _ended(one: OpenedProgram, rule: Rule) -> bool:
    return finished(one.samples_ns, sum(one.samples_ns), rule)


def check_alike(targets: Sequence[Target]) -> None:
    """Raise unless no file, or every file, is timed by a program's own clock.

    Raises:
        UnsupportedError: Two clocks would be put side by side.
    """
    clocks = {
        backend.clock if isinstance(backend, ProgramBackend) else ""
        for backend in (BACKENDS.get(target.backend)() for target in targets)
    }
    if len(clocks) > 1:
        raise UnsupportedError(
            "These targets cannot be measured in turns: they are timed by different clocks.",
            got="; ".join(sorted(clock or "edgekd's agent" for clock in clocks)),
            todo="measure them in two calls; their times do not compare",
        )
