"""A user's own devices: one target file each, in a folder that is the user's to keep."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd.core.config import dump_yaml, validate
from edgekd.core.errors import EdgekdError, RecipeError
from edgekd.core.files import atomic_write
from edgekd.core.target import Target, load_target, target_names
from edgekd.profile.transports._contract import TRANSPORTS, transport_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgekd.profile.transports._answers import Described

FOLDER = Path("devices")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LINES = """\
# {cpu}, {cores} cores usable, {memory:.1f} GiB of memory
# instruction sets: {flags}
# {os} {kernel}, Python {python}; {runtimes}
"""


@dataclass(frozen=True, slots=True)
class CheckedDevice:
    """A device that answered.

    Attributes:
        target: Its file.
        described: What it says about itself.
        runtime: Version of the target's runtime there, which is in the target's range.
    """

    target: Target
    described: Described
    runtime: str


def device_target(name: str, transport: Mapping[str, Any], based_on: str) -> Target:
    """The target `based_on` under another name, reached another way.

    Raises:
        RecipeError: The name is no file's, the transport is not valid, or there is no such target.
    """
    if not _NAME.fullmatch(name) or name in target_names():
        raise RecipeError(
            f"A device cannot be called {name!r}.",
            expected="letters, digits, '.', '_' and '-', and no name of a shipped target",
        )
    plain = load_target(based_on).model_dump(mode="json", exclude_none=True)
    target = validate(Target, {**plain, "name": name, "transport": transport}, source=name)
    transport_of(target)
    return target


def write_device(target: Target, path: Path, *, replace: bool, above: str = "") -> None:
    """Write a target's file.

    Args:
        target: What.
        path: Where; its name must be the target's.
        replace: An older file of that name may go.
        above: Comment lines for its head.

    Raises:
        RecipeError: There is such a file already, or it would carry another name.
        RunFolderError: It cannot be written.
    """
    if path.name != f"{target.name}.yaml":
        raise RecipeError(
            f"{path} is no file for the device {target.name!r}.",
            expected=f"a file called {target.name}.yaml",
        )
    if path.exists() and not replace:
        raise RecipeError(
            f"There is a file {path} already.",
            todo="change it in your editor, or replace it with --replace",
        )
    plain = target.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    atomic_write(path, above + dump_yaml(plain))


def device_files(folder: Path) -> dict[str, Target | EdgekdError]:
    """Every file of the folder by its name, as a target or as what is wrong with it."""
    found: dict[str, Target | EdgekdError] = {}
    for path in sorted(folder.glob("*.yaml")):
        try:
            target = load_target(str(path))
            transport_of(target)
            found[path.stem] = target
        except EdgekdError as e:
            found[path.stem] = e
    return found


def find_device(name: str, folder: Path) -> Target:
    """A device by its name in the folder, by the path of its file, or a shipped target.

    Raises:
        RecipeError: There is none.
    """
    path = folder / f"{name}.yaml"
    if _NAME.fullmatch(name) and path.is_file():
        return load_target(str(path))
    return load_target(name)


def check_device(target: Target) -> CheckedDevice:
    """Connect and ask.

    Raises:
        DeviceError: It is out of reach, or lacks the runtime.
        UnsupportedError: The runtime there is outside the target's range.
    """
    with transport_of(target).connect() as device:
        described = device.describe()
        return CheckedDevice(target, described, device.runtime(target, timing_only=True))


def learned(checked: CheckedDevice) -> tuple[Target, str]:
    """The target with what its device says about itself, and comment lines that tell the rest."""
    target, machine = checked.target, checked.described.environment.machine
    governor = checked.described.environment.state.get("governor")
    mode = f"governor {governor}" if governor else target.conditions.power_mode
    conditions = target.conditions.model_copy(update={"power_mode": mode})
    description = f"{target.backend} {checked.runtime} on {machine.cpu}, {target.precision}"
    version = {"runtime": f">={checked.runtime}"}
    update = {"description": description, "conditions": conditions, **version}
    runtimes = checked.described.runtimes.items()
    return target.model_copy(update=update), _LINES.format(
        cpu=machine.cpu,
        cores=machine.cores_usable,
        memory=checked.described.memory_bytes / 2**30,
        flags=" ".join(machine.cpu_flags) or "none that edgekd knows",
        os=machine.os,
        kernel=machine.kernel,
        python=machine.python,
        runtimes=", ".join(f"{n} {v}" for n, v in runtimes if v) or "no runtime",
    )


def way_to(target: Target) -> str:
    """How a target is reached, in a word or two: ``ssh pi@192.168.1.7``."""
    spec = TRANSPORTS.spec_of(transport_of(target))
    place = getattr(transport_of(target), "place", "")
    return f"{spec['name']} {place}".strip()
