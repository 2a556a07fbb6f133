"""TensorRT 10 and 11 through trtexec, on a machine with an NVIDIA GPU."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgekd.backends._contract import BACKENDS
from edgekd.backends._feeds import check_feeds
from edgekd.backends._onnx.file import check, check_one_file
from edgekd.backends._tensorrt import trtexec
from edgekd.backends._tensorrt.cuda import gpu_count
from edgekd.backends._tensorrt.trtexec_arguments import Switches
from edgekd.backends._tensorrt.trtexec_jobs import WARM_UP_MS, TrtexecJobs
from edgekd.core.errors import UnsupportedError
from edgekd.core.files import atomic_write

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from edgekd.backends._contract import Feeds, Job
    from edgekd.core.target import Target
    from edgekd.core.types import LayerRecord

NAME = "TensorRT"


@BACKENDS.register
class TensorRt:
    """`target.options` say what a latency is: see `Switches` in `_tensorrt.trtexec_arguments`.

    The artifact is the ONNX file: an engine is for one GPU and one version, two builds of it
    differ, and the parity ladder cannot read it.
    """

    distribution: ClassVar[str] = ""
    program: ClassVar[str] = trtexec.PROGRAM
    folders: ClassVar[tuple[str, ...]] = (trtexec.USUAL_FOLDER,)
    clock: ClassVar[str] = "trtexec: CUDA events around each inference"
    warm_up: ClassVar[str] = f"by trtexec, {WARM_UP_MS} ms before each of its calls"

    def version(self) -> str:
        """Version of the program; see the contract."""
        return ".".join(map(str, trtexec.version(trtexec.find())))

    def check_machine(self, target: Target) -> None:
        """Raise: without a GPU nothing runs, and with one edgekd's own clock cannot time it."""
        Switches.of(target)
        if gpu_count() == 0:
            raise UnsupportedError(
                f"The target {target.name!r} cannot be measured on this machine.",
                expected=f"an NVIDIA GPU, which {NAME} builds and runs on",
                got="none that the driver offers",
                todo="run edgekd on the device itself, or take the target out of the recipe",
            )
        raise UnsupportedError(
            f"The target {target.name!r} is not measured in edgekd's own process.",
            expected="trtexec called by edgekd's agent, which takes the times that it writes",
            got="transport: local",
            todo=f"`edgekd device add NAME --host localhost --like {target.name}`, and then "
            "`edgekd profile --target devices/NAME.yaml`",
        )

    def told_version(self, said: str) -> str:
        """See the contract of a program."""
        return ".".join(map(str, trtexec.told_version(said, trtexec.PROGRAM)))

    def jobs(self, path: Path, target: Target, version: str) -> TrtexecJobs:
        """See the contract of a program."""
        check(path)
        return TrtexecJobs(path, path, target, major=int(version.partition(".")[0]))

    def check_end(self, code: int, said: str, arguments: Sequence[str], *, place: str) -> None:
        """See the contract of a program."""
        trtexec.check_end(code, said, arguments, place=place)

    def build(self, model: bytes, target: Target, out: Path) -> Path:
        """Write ``<out>.onnx``, after an engine was really built of it; see the contract."""
        path = out.with_name(out.name + ".onnx")
        check_one_file(model, path)
        TensorRtSession(model, path, target).close()
        atomic_write(path, model)
        return path

    def open(self, path: Path, target: Target, *, threads: int) -> TensorRtSession:
        """Build an engine of an ONNX file; see the contract."""
        check(path)
        return TensorRtSession(path, path, target)

    def layers(
        self, path: Path, target: Target, feeds: Feeds, *, threads: int
    ) -> Sequence[LayerRecord]:
        """Every layer of the engine with its mean time over 10 runs; see the contract."""
        with self.open(path, target, threads=threads) as session:
            return session.layers(feeds)


class TensorRtSession:
    """An engine in a folder of its own, which trtexec loads at each call."""

    def __init__(self, source: Path | bytes, path: Path, target: Target) -> None:
        self._path = path
        self._program = trtexec.find()
        major = trtexec.version(self._program)[0]
        self._jobs = TrtexecJobs(source, path, target, major=major)
        self.inputs, self.outputs = self._jobs.inputs, self._jobs.outputs
        self._home = tempfile.TemporaryDirectory(prefix="edgekd-tensorrt-")
        self._folder = Path(self._home.name)
        try:
            (self._folder / self._jobs.model_file).write_bytes(self._jobs.model())
            trtexec.call(self._program, self._jobs.build(), self._folder)
        except BaseException:
            self.close()
            raise

    def run(self, feeds: Feeds) -> dict[str, NDArray[np.generic]]:
        """All outputs by name, with the six digits that trtexec prints.

        Raises:
            DataError: The feeds do not fit.
            UnsupportedError, DeviceError: trtexec fails.
        """
        self._call(self._jobs.run(), feeds)
        return self._jobs.read_run(self._folder)

    def bind(self, feeds: Feeds) -> Callable[[], object]:
        """Raise: around trtexec a clock would time how a process starts; see `samples_ns`."""
        raise UnsupportedError(
            f"{self._path} cannot be timed by edgekd's own clock.",
            expected="trtexec's own times of the inferences alone",
            got="a process at each inference",
        )

    def samples_ns(self, feeds: Feeds, *, runs: int, warm_up_ms: int) -> list[int]:
        """Latencies in ns by CUDA's events, one request at a time.

        Raises:
            DataError: The feeds do not fit.
            UnsupportedError, DeviceError: trtexec fails, or its report is not usable.
        """
        self._call(self._jobs.time(runs, warm_up_ms=warm_up_ms), feeds)
        return self._jobs.read_times(self._folder, at_least=runs)

    def layers(self, feeds: Feeds) -> list[LayerRecord]:
        """Every layer of the engine in order."""
        self._call(self._jobs.explain(), feeds)
        return self._jobs.read_layers(self._folder)

    def close(self) -> None:
        """Remove the engine; calling it twice is fine."""
        self._home.cleanup()

    def __enter__(self) -> TensorRtSession:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _call(self, job: Job, feeds: Feeds) -> None:
        check_feeds(self.inputs, feeds, source=f"the feeds for {self._path.name}")
        for name, file in self._jobs.files.items():  # the raw bytes that trtexec loads
            np.ascontiguousarray(feeds[name]).tofile(self._folder / file)
        for report in job.reports:  # what an earlier call wrote must not be taken for this one's
            (self._folder / report).unlink(missing_ok=True)
        trtexec.call(self._program, job.arguments, self._folder)
