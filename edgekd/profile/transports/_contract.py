"""Contract of a transport: how a device is reached, and what can be asked of it there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from edgekd.core.errors import RecipeError
from edgekd.core.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from edgekd.backends._contract import Feeds
    from edgekd.core.progress import Progress
    from edgekd.core.target import Target
    from edgekd.core.types import LayerRecord, Profile, TensorSpec
    from edgekd.profile.measure import MeasureRule
    from edgekd.profile.memory import MemoryFigure
    from edgekd.profile.sustained import Sustained
    from edgekd.profile.transports._answers import Described


@dataclass(frozen=True, slots=True, eq=False)
class Load:
    """One file, and what it is to be run on.

    Attributes:
        name: For progress bars.
        path: The file here; it is copied to the device if that is elsewhere.
        sha256: Of the file.
        target: Whose backend, options and conditions it runs under.
        feeds: Inputs of one inference each.
    """

    name: str
    path: Path
    sha256: str
    target: Target
    feeds: Sequence[Feeds]


class Device(Protocol):
    """A device while it is reached; a context manager, and nobody else measures there meanwhile.

    Raises:
        DeviceError: From every method: the device cannot be reached or does not do its part.
    """

    def describe(self) -> Described:
        """Everything that it says about itself."""

    def environment(self) -> dict[str, Any]:
        """``machine``, ``versions`` and ``state`` of the device."""

    def runtime(self, target: Target, *, timing_only: bool = False) -> str:
        """Version of the target's runtime there.

        Args:
            target: Whose.
            timing_only: Its files are timed and explained there, and not run on every sample of
                a test set, for which a runtime that is a program is too slow to start.

        Raises:
            UnsupportedError: It is outside the target's range, or too slow for what is to come.
        """

    def inputs(self, path: Path, target: Target) -> Sequence[TensorSpec]:
        """What a file asks for."""

    def measure(
        self, loads: Sequence[Load], rule: MeasureRule, *, inputs: str, progress: Progress
    ) -> list[Profile]:
        """Time all files in one go, in turns; a profile of each, in their order."""

    def sustain(
        self, load: Load, duration_s: float, *, inputs: str, progress: Progress
    ) -> Sustained:
        """Run one file back to back for so long.

        Raises:
            UnsupportedError: Not on this device.
            BrokenOffError: The device was lost meanwhile; it holds what came until then.
        """

    def run(self, load: Load) -> list[dict[str, NDArray[np.generic]]]:
        """All outputs of every inference."""

    def memory(self, load: Load) -> MemoryFigure | None:
        """Of a fresh process there; None where nothing can be measured."""

    def layers(self, load: Load) -> tuple[LayerRecord, ...]:
        """Every node as it runs there."""

    def __enter__(self) -> Device: ...
    def __exit__(self, *exc: object) -> None: ...


class Transport(Protocol):
    """One way to reach a device. Its fields are the settings under `transport` in a target."""

    def connect(self) -> Device:
        """Reach the device; nothing happens before the first question."""


TRANSPORTS: Registry[Transport] = Registry("transport", "edgekd.profile.transports")


def transport_of(target: Target) -> Transport:
    """The transport that a target asks for.

    Raises:
        RecipeError: There is none of that name, or its settings are wrong.
    """
    try:
        return TRANSPORTS.build(target.transport)
    except RecipeError as e:
        raise type(e)(
            f"The target {target.name!r} cannot be reached. {e.failed}",
            expected=e.expected,
            got=e.got,
            todo=e.todo,
        ) from e
