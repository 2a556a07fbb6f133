"""Contract of a backend: one runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol, runtime_checkable

from edgekd.core.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from edgekd.core.target import Target
    from edgekd.core.types import LayerRecord, TensorSpec

    Feeds = Mapping[str, NDArray[np.generic]]


class Session(Protocol):
    """An artifact loaded by its runtime; a context manager."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def run(self, feeds: Feeds) -> dict[str, NDArray[np.generic]]:
        """All outputs by name. `feeds` holds one array per input."""

    def bind(self, feeds: Feeds) -> Callable[[], object]:
        """A call that runs one inference on fixed feeds with as little around it as there is."""

    def close(self) -> None:
        """Free the session; calling it twice is fine."""

    def __enter__(self) -> Session: ...
    def __exit__(self, *exc: object) -> None: ...


class Backend(Protocol):
    """One runtime. Plugins are built without arguments and hold no state.

    Attributes:
        distribution: What pip installs the runtime from; "" where pip cannot.
    """

    distribution: ClassVar[str]

    def version(self) -> str:
        """Version of the installed runtime.

        Raises:
            MissingDependencyError: It is a program, and not there.
        """

    def check_machine(self, target: Target) -> None:
        """Raise unless this machine can open and time the target's artifacts.

        Asked before anything is trained: a runtime may build where it cannot run.

        Raises:
            UnsupportedError: It lacks the device; the text says what to do.
        """

    def build(self, model: bytes, target: Target, out: Path) -> Path:
        """Write the artifact for serialized ONNX `model` at `out` (no suffix); return its path.

        Raises:
            UnsupportedError: The runtime cannot load the model; the text says why.
        """

    def open(self, path: Path, target: Target, *, threads: int) -> Session:
        """Load an artifact.

        Raises:
            UnsupportedError: The runtime refuses the file.
            DataError: The file is empty, cut off or points outside its folder.
        """

    def layers(
        self, path: Path, target: Target, feeds: Feeds, *, threads: int
    ) -> Sequence[LayerRecord]:
        """Every node as it really runs, after the runtime's own rewriting, with mean times."""


@runtime_checkable
class PortableBackend(Backend, Protocol):
    """A runtime that edgekd's agent opens on devices elsewhere."""

    def layer_model(self, path: Path) -> bytes:
        """The file as it must be for a device elsewhere to tell its layers apart."""

    def read_layers(self, path: Path, reading: Mapping[str, bytes]) -> Sequence[LayerRecord]:
        """As `layers`, from what the agent on a device read of `layer_model` there."""


class Job(NamedTuple):
    """One call of a program: its arguments, and the files that it writes where it is called."""

    arguments: list[str]
    reports: tuple[str, ...]


class Jobs(Protocol):
    """One file for a program that builds, runs, times and explains it by itself.

    Attributes:
        inputs: What the file asks for.
        files: By input, where the program reads its raw bytes.
        model_file: Where it reads the model.
        result: What it builds and then loads.
    """

    inputs: tuple[TensorSpec, ...]
    files: Mapping[str, str]
    model_file: str
    result: str

    def model(self) -> bytes:
        """The file as the program is to read it."""

    def build(self) -> list[str]:
        """Arguments that make `result` of the model."""

    def run(self) -> Job:
        """One inference, for its outputs."""

    def time(self, runs: int) -> Job:
        """So many inferences, timed by the program."""

    def explain(self) -> Job:
        """Every layer, timed by the program."""

    def read_run(self, folder: Path) -> dict[str, NDArray[np.generic]]:
        """All outputs by name, from the reports in a folder."""

    def read_times(self, folder: Path, *, at_least: int) -> list[int]:
        """The program's own times in ns, from the reports in a folder."""

    def read_layers(self, folder: Path) -> Sequence[LayerRecord]:
        """See `Backend.layers`; from the reports in a folder."""


@runtime_checkable
class ProgramBackend(Backend, Protocol):
    """A runtime that is a program on the device, and times with a clock of its own.

    Attributes:
        program: Its name.
        folders: Where it may be, beside the device's path.
        clock: What it times with, in words.
        warm_up: What it does before it times, in words.
    """

    program: ClassVar[str]
    folders: ClassVar[tuple[str, ...]]
    clock: ClassVar[str]
    warm_up: ClassVar[str]

    def told_version(self, said: str) -> str:
        """Its version, in what it says when it is asked for ``--help``.

        Raises:
            DeviceError: It says something else.
        """

    def jobs(self, path: Path, target: Target, version: str) -> Jobs:
        """What it is to be called with for a file.

        Raises:
            UnsupportedError, DataError: It would refuse or misread the file.
        """

    def check_end(self, code: int, said: str, arguments: Sequence[str], *, place: str) -> None:
        """Raise unless a call of it ended well.

        Raises:
            UnsupportedError: It refused what it was asked for.
            DeviceError: It died.
        """


BACKENDS: Registry[Backend] = Registry("backend", "edgekd.backends")
