"""TensorRT 10 and 11 through trtexec, on a machine with an NVIDIA GPU."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import onnx

from edgekd.backends import _trtexec as trtexec
from edgekd.backends import _trtexec_arguments as arguments
from edgekd.backends import _trtexec_reports as reports
from edgekd.backends._contract import BACKENDS
from edgekd.backends._cuda import gpu_count
from edgekd.backends._feeds import check_feeds
from edgekd.backends._onnx_file import check, check_one_file
from edgekd.backends._onnx_specs import check_fixed, input_specs, output_specs
from edgekd.backends._refusal import refusal
from edgekd.backends._tensorrt_kernels import records, with_names
from edgekd.backends._tensorrt_rules import check_codes
from edgekd.core.errors import UnsupportedError
from edgekd.core.files import atomic_write

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from edgekd.backends._contract import Feeds
    from edgekd.core.target import Target
    from edgekd.core.types import LayerRecord

NAME = "TensorRT"
_ENGINE, _MODEL = "model.engine", "model.onnx"
_LAYER_RUNS = 10


@BACKENDS.register
class TensorRt:
    """`target.options` say what a latency is: see `Switches` in `_trtexec_arguments`.

    The artifact is the ONNX file: an engine is for one GPU and one version, two builds of it
    differ, and the parity ladder cannot read it.
    """

    distribution: ClassVar[str] = ""

    def version(self) -> str:
        """Version of the program; see the contract."""
        return ".".join(map(str, trtexec.version(trtexec.find())))

    def check_machine(self, target: Target) -> None:
        """Raise: without a GPU nothing runs, and with one edgekd's own clock cannot time it."""
        arguments.Switches.of(target)
        if gpu_count() == 0:
            raise UnsupportedError(
                f"The target {target.name!r} cannot be measured on this machine.",
                expected=f"an NVIDIA GPU, which {NAME} builds and runs on",
                got="none that the driver offers",
                todo="run edgekd on the device itself, or take the target out of the recipe",
            )
        raise UnsupportedError(
            f"The target {target.name!r} cannot be measured in turns with other files.",
            expected="inferences that edgekd times one by one",
            got="trtexec, which times its own",
            todo="take the target out of the recipe; `samples_ns` of its session has its times",
        )

    def build(self, model: bytes, target: Target, out: Path) -> Path:
        """Write ``<out>.onnx``, after an engine was really built of it; see the contract."""
        path = out.with_name(out.name + ".onnx")
        check_one_file(model, path)
        TensorRtSession(_loaded(model, path), path, target).close()
        atomic_write(path, model)
        return path

    def open(self, path: Path, target: Target, *, threads: int) -> TensorRtSession:
        """Build an engine of an ONNX file; see the contract."""
        check(path)
        return TensorRtSession(_loaded(path, path), path, target)

    def layers(
        self, path: Path, target: Target, feeds: Feeds, *, threads: int
    ) -> Sequence[LayerRecord]:
        """Every layer of the engine with its mean time over 10 runs; see the contract."""
        with self.open(path, target, threads=threads) as session:
            return session.layers(feeds)


class TensorRtSession:
    """An engine in a folder of its own, which trtexec loads at each call."""

    def __init__(self, model: onnx.ModelProto, path: Path, target: Target) -> None:
        self._model, self._path = with_names(model), path
        self._switches = arguments.Switches.of(target)
        self.inputs, self.outputs = input_specs(model, path), output_specs(model, path)
        check_codes(model, path, target, NAME)
        check_fixed(self.inputs, path)
        self._program = trtexec.find()
        self._major = trtexec.version(self._program)[0]
        self._home = tempfile.TemporaryDirectory(prefix="edgekd-tensorrt-")
        self._folder = Path(self._home.name)
        try:
            self._build()
        except BaseException:
            self.close()
            raise

    def run(self, feeds: Feeds) -> dict[str, NDArray[np.generic]]:
        """All outputs by name, with the six digits that trtexec prints.

        Raises:
            DataError: The feeds do not fit.
            UnsupportedError, DeviceError: trtexec fails.
        """
        name = "outputs.json"
        files = self._fed(feeds)
        self._call(arguments.run_arguments, files, name)
        return reports.outputs(self._folder / name, self.outputs)

    def bind(self, feeds: Feeds) -> Callable[[], object]:
        """Raise: around trtexec a clock would time how a process starts; see `samples_ns`."""
        self._fed(feeds)
        raise UnsupportedError(
            f"{self._path} cannot be timed by edgekd's own clock.",
            expected="trtexec's own times of the inferences alone",
            got="a process at each inference",
        )

    def samples_ns(self, feeds: Feeds, *, runs: int, warm_up_ms: int) -> list[int]:
        """Latencies in ns by CUDA's events, one request at a time.

        trtexec keeps the ms since its start in float32, which is 1 us coarse after 8 s: many short
        calls say more than a long one.

        Raises:
            DataError: The feeds do not fit.
            UnsupportedError, DeviceError: trtexec fails, or its report is not usable.
        """
        name = "times.json"
        files = self._fed(feeds)
        timed = partial(arguments.time_arguments, runs=runs, warm_up_ms=warm_up_ms)
        self._call(timed, files, name)
        return reports.samples_ns(self._folder / name, at_least=runs)

    def layers(self, feeds: Feeds) -> list[LayerRecord]:
        """Every layer of the engine in order."""
        profile, info = "profile.json", "layers.json"
        files = self._fed(feeds)
        self._call(partial(arguments.profile_arguments, runs=_LAYER_RUNS), files, profile, info)
        found = reports.kernels(self._folder / info, self._folder / profile)
        return records(found, self._model)

    def close(self) -> None:
        """Remove the engine; calling it twice is fine."""
        self._home.cleanup()

    def __enter__(self) -> TensorRtSession:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _build(self) -> None:
        onnx.save(self._model, self._folder / _MODEL)
        command = arguments.build_arguments(
            _MODEL, _ENGINE, major=self._major, switches=self._switches
        )
        trtexec.call(self._program, command, self._folder)

    def _call(self, make: Callable[..., list[str]], files: dict[str, str], *reports: str) -> None:
        for name in reports:  # what an earlier call wrote must not be taken for this one's
            (self._folder / name).unlink(missing_ok=True)
        command = make(_ENGINE, files, *reports, major=self._major, switches=self._switches)
        trtexec.call(self._program, command, self._folder)

    def _fed(self, feeds: Feeds) -> dict[str, str]:
        """Write each input as the raw bytes that trtexec loads."""
        check_feeds(self.inputs, feeds, source=f"the feeds for {self._path.name}")
        files = {spec.name: f"input-{i}.bin" for i, spec in enumerate(self.inputs)}
        for name, file in files.items():
            np.ascontiguousarray(feeds[name]).tofile(self._folder / file)
        return files


def _loaded(model: Path | bytes, path: Path) -> Any:
    """The file with its weights, checked.

    Raises:
        UnsupportedError, DataError: It is not one.
    """
    try:
        proto = onnx.load_from_string(model) if isinstance(model, bytes) else onnx.load(model)
        onnx.checker.check_model(proto)
    except Exception as e:  # the checker's and protobuf's own have no common base
        raise refusal(model, path, NAME, e) from e
    return proto
