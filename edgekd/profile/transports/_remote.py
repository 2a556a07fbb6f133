"""A device elsewhere: edgekd's agent is sent there over a connection and asked over the same."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np

from edgekd import __version__
from edgekd.backends._contract import BACKENDS, PortableBackend, ProgramBackend
from edgekd.backends._onnx.file import check
from edgekd.backends._onnx.specs import input_specs
from edgekd.backends._runtime import check_version
from edgekd.core.errors import DeviceError, UnsupportedError
from edgekd.core.hashing import sha256_bytes, sha256_file
from edgekd.core.types import Profile
from edgekd.profile.agent.arrays import pack
from edgekd.profile.agent.endurance import PIECE, WINDOWS
from edgekd.profile.agent.timing import WARM_UP_MAX_S
from edgekd.profile.measure import conditions
from edgekd.profile.sustained import BrokenOffError
from edgekd.profile.transports import _answers as answers
from edgekd.profile.transports import _problems as problems
from edgekd.profile.transports._connection import Connection, File, Parts
from edgekd.profile.transports._long_run import LongRun
from edgekd.profile.transports._program import Program, check_alike, time_in_turns
from edgekd.profile.transports._stream import NonsenseError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from edgekd.core.progress import Progress
    from edgekd.core.target import Target
    from edgekd.core.types import LayerRecord, TensorSpec
    from edgekd.profile.agent.timing import Rule
    from edgekd.profile.measure import MeasureRule
    from edgekd.profile.memory import MemoryFigure
    from edgekd.profile.sustained import Sustained
    from edgekd.profile.transports._connection import Link
    from edgekd.profile.transports._contract import Load

    Arrays = Mapping[str, NDArray[np.generic]]

T = TypeVar("T")
_ARRAY_BYTES = 1 << 31
_SAMPLE_BYTES = 8
#: no block is resized so often; bounds what a device may send
_OVERSHOOT = 16
#: times what the rule allows, for loading and for what is not timed
_SLACK = 2.0
_MODEL = "edgekd-model.onnx"


class RemoteDevice:
    """See the contract of `Device`.

    Args:
        link: Leads to it.
        transport: Name of the link's kind.
    """

    def __init__(self, link: Link, transport: str) -> None:
        self._link, self._transport = link, transport
        self._connection = Connection(link)
        self._described: answers.Described | None = None
        self._programs: dict[str, Program] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._connection.close()

    def describe(self) -> answers.Described:
        """The device in its own words, checked."""
        return self._work(
            "describe",
            (),
            lambda answer, _: answers.plain(answers.Described, answer),
            {"packages": list(answers.PACKAGES)},
            most_bytes=0,
        )

    def environment(self) -> dict[str, Any]:
        """See the contract."""
        return self._environment(self.describe().environment)

    def runtime(self, target: Target, *, timing_only: bool = False) -> str:
        """See the contract."""
        if _is_program(target):
            return self._program_version(target, timing_only=timing_only)
        backend = _portable(target)
        if self._described is None:
            self._described = self.describe()
        version = self._described.runtimes.get(backend.distribution)
        if version is None:
            raise problems.missing(self._link.place, backend.distribution)
        check_version(target, version, distribution=backend.distribution, place=self._link.place)
        return version

    def inputs(self, path: Path, target: Target) -> Sequence[TensorSpec]:
        """Read from the file here: nothing that a device says decides how much memory is taken."""
        import onnx

        check(path)
        return input_specs(onnx.load(path, load_external_data=False), path)

    def measure(
        self, loads: Sequence[Load], rule: MeasureRule, *, inputs: str, progress: Progress
    ) -> list[Profile]:
        """See the contract; all of them are timed in one process there, or by their program."""
        check_alike([load.target for load in loads])
        if _is_program(loads[0].target):
            return self._measure_programs(loads, rule, inputs=inputs, progress=progress)
        limits = rule.limits()
        seconds = len(loads) * (WARM_UP_MAX_S + rule.max_duration_s)
        what = loads[0].name if len(loads) == 1 else f"{len(loads)} files in turns"
        progress.say(f"measure {what} on {self._link.place}, at most {seconds:.0f} s")
        start = time.perf_counter()

        def read(answer: dict[str, Any], arrays: Arrays) -> list[Profile]:
            elapsed_s = time.perf_counter() - start
            timed: answers.Timed = answers.plain(answers.Timed, answer)
            samples = answers.samples_of(arrays, len(loads), limits, elapsed_s)
            where = self._environment(timed.environment)
            return [
                Profile(
                    artifact_sha256=load.sha256,
                    target=load.target.name,
                    conditions=conditions(load.target, rule, inputs=inputs, others=len(loads) - 1),
                    samples_ns=samples_ns,
                    environment=where,
                    source="measured",
                )
                for load, samples_ns in zip(loads, samples, strict=True)
            ]

        return self._work(
            "measure",
            loads,
            read,
            {"rule": limits._asdict()},
            work_s=seconds * _SLACK,
            most_bytes=len(loads) * _most_samples(limits) * _SAMPLE_BYTES,
        )

    def sustain(
        self, load: Load, duration_s: float, *, inputs: str, progress: Progress
    ) -> Sustained:
        """See the contract; what the device has timed comes over piece by piece meanwhile."""
        if _is_program(load.target):
            raise UnsupportedError(
                f"{load.target.backend} cannot be run for minutes on {self._link.place}.",
                expected="a runtime that edgekd's agent opens, and times without a pause",
                got="a program, which is started anew for every few seconds",
                todo="leave out --sustained",
            )
        with progress.bar(f"sustain {load.name} on {self._link.place}", WINDOWS) as bar:
            run = LongRun(load, duration_s, bar, where=self._environment, inputs=inputs)
            try:
                return self._work(
                    "sustain",
                    (load,),
                    run.end,
                    {"duration_s": duration_s},
                    work_s=(WARM_UP_MAX_S + duration_s) * _SLACK,
                    most_bytes=0,
                    parts=Parts(
                        run.take,
                        within_s=WARM_UP_MAX_S
                        + duration_s / WINDOWS * _SLACK
                        + self._link.timeout_s,
                        most_bytes=PIECE * _SAMPLE_BYTES,
                    ),
                )
            except problems.DisbelievedError:
                raise
            except DeviceError as e:
                raise BrokenOffError(e, run.so_far()) from e

    def run(self, load: Load) -> list[dict[str, NDArray[np.generic]]]:
        """See the contract."""
        if _is_program(load.target):
            return self._program(load.target).opened(load).run()
        names, count = check(load.path).outputs, len(load.feeds)
        return self._work(
            "run", (load,), lambda _, arrays: answers.outputs_of(arrays, names, count)
        )

    def memory(self, load: Load) -> MemoryFigure | None:
        """See the contract; of a program none is known."""
        if _is_program(load.target):
            return None
        return self._work(
            "memory", (load,), lambda answer, _: answers.memory_of(answer), most_bytes=0, feeds=1
        )

    def layers(self, load: Load) -> tuple[LayerRecord, ...]:
        """What the runtime there says about its nodes, read here."""
        if _is_program(load.target):
            return tuple(self._program(load.target).opened(load).layers())
        backend = _portable(load.target)

        def read(_: dict[str, Any], arrays: Arrays) -> tuple[LayerRecord, ...]:
            reading = {name: array.tobytes() for name, array in arrays.items()}
            try:
                return tuple(backend.read_layers(load.path, reading))
            except Exception as e:  # a graph from elsewhere can be wrong in any way
                raise NonsenseError(f"layers: {type(e).__name__}") from e

        prepared = backend.layer_model(load.path)
        return self._work("layers", (load,), read, feeds=1, instead=prepared)

    def _program(self, target: Target) -> Program:
        if target.backend not in self._programs:
            backend = BACKENDS.get(target.backend)()
            assert isinstance(backend, ProgramBackend)
            self._programs[target.backend] = Program(self._connection, self._link, backend)
        return self._programs[target.backend]

    def _program_version(self, target: Target, *, timing_only: bool) -> str:
        program = self._program(target)
        if not timing_only:
            raise UnsupportedError(
                f"The target {target.name!r} is for `edgekd profile` and `edgekd explain` alone.",
                expected="a runtime that runs every test sample in one process, for parity",
                got=f"{program.backend.program}, a process for each sample",
                todo="take the target out; profile the finished file there",
            )
        version = program.version()
        check_version(target, version, distribution="", place=self._link.place)
        return version

    def _measure_programs(
        self, loads: Sequence[Load], rule: MeasureRule, *, inputs: str, progress: Progress
    ) -> list[Profile]:
        opened = [self._program(load.target).opened(load) for load in loads]
        where, title = self.environment(), f"measure {loads[0].name} on {self._link.place}"
        try:
            time_in_turns(opened, rule.limits(), title, progress)
        except NonsenseError as e:
            raise problems.nonsense(self._link.place, str(e)) from e
        return [one.profile(rule, where, inputs=inputs, others=len(loads) - 1) for one in opened]

    def _work(
        self,
        task: str,
        loads: Sequence[Load],
        read: Callable[[dict[str, Any], Arrays], T],
        more: Mapping[str, Any] | None = None,
        *,
        work_s: float = 0.0,
        most_bytes: int = _ARRAY_BYTES,
        feeds: int | None = None,
        instead: bytes | None = None,
        parts: Parts | None = None,
    ) -> T:
        """Ask for one piece of work; `read` gets the answer and its arrays, unbelieved as yet."""
        files = [_files(load.path, load.sha256, instead) for load in loads]
        stacked = {
            f"{i}/{name}": np.stack([f[name] for f in load.feeds[:feeds]])
            for i, load in enumerate(loads)
            for name in load.feeds[0]
        }
        try:
            heads, bodies = pack(stacked)
        except ValueError as e:
            raise UnsupportedError(
                "These inputs cannot be sent to a device.", expected="numbers", got=str(e)
            ) from e
        models = [
            _model(load, found, len(load.feeds[:feeds]))
            for load, found in zip(loads, files, strict=True)
        ]
        return self._connection.work(
            {"task": task, "models": models, "arrays": heads, **(more or {})},
            b"".join(bodies),
            {f.sha256: f for found in files for f in found},
            limit_s=work_s + self._link.timeout_s,
            most_bytes=min(most_bytes, _ARRAY_BYTES),
            read=lambda answer, body: read(answer, answers.arrays_of(answer, body)),
            parts=parts,
        )

    def _environment(self, found: answers.Environment) -> dict[str, Any]:
        plain = found.model_dump(mode="json")
        plain["versions"] = {"edgekd": __version__, **plain["versions"]}
        return {**plain, "transport": self._transport}


def _most_samples(rule: Rule) -> int:
    """More than the rule can give of one model."""
    least = max(rule.needed, rule.min_ns // answers.FASTEST_NS)
    return min(_OVERSHOOT * least, rule.max_ns // answers.FASTEST_NS)


def _is_program(target: Target) -> bool:
    return isinstance(BACKENDS.get(target.backend)(), ProgramBackend)


def _portable(target: Target) -> PortableBackend:
    """The target's backend, if edgekd's agent can open its files.

    Raises:
        UnsupportedError: It cannot.
    """
    backend = BACKENDS.get(target.backend)()
    if not isinstance(backend, PortableBackend):
        raise UnsupportedError(
            f"The target {target.name!r} can only be measured where edgekd itself runs.",
            expected="ONNX Runtime, OpenVINO or trtexec, which edgekd's agent knows on devices",
            got=target.backend,
            todo="set `transport: local` and run edgekd there",
        )
    return backend


def _files(path: Path, sha256: str, instead: bytes | None) -> list[File]:
    """The model and the data files beside it."""
    outline = check(path)
    first = File(_MODEL, sha256, path)
    if instead is not None:
        first = File(_MODEL, sha256_bytes(instead), instead)
    beside = dict.fromkeys(e.location for e in outline.externals)
    return [first, *(File(n, sha256_file(path.parent / n), path.parent / n) for n in beside)]


def _model(load: Load, files: Sequence[File], count: int) -> dict[str, Any]:
    outline = check(load.path)
    return {
        "files": [[f.name, f.sha256] for f in files],
        "backend": load.target.backend,
        "processor": load.target.processor,
        "threads": load.target.conditions.threads,
        "options": load.target.options,
        "inputs": list(load.feeds[0]),
        "outputs": list(outline.outputs),
        "count": count,
    }
