"""`edgekd device`: the devices that files are proven and measured on."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from edgekd.profile.devices import CheckedDevice

_FOLDER = Path("devices")
_BASE = "x86-onnxruntime-int8"

device = typer.Typer(
    help="Add, list, check and learn the devices that files are proven and measured on.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Name = Annotated[str, typer.Argument(help="Of the device; its file is called so too.")]
Host = Annotated[
    str | None, typer.Option(help="Reach it by ssh: name, address or Host of your ssh config.")
]
Serial = Annotated[str | None, typer.Option(help="Reach it by adb: as `adb devices` shows it.")]
User = Annotated[str | None, typer.Option(help="For ssh.")]
Port = Annotated[int | None, typer.Option(help="For ssh.")]
Identity = Annotated[Path | None, typer.Option(help="Private key for ssh.")]
KnownHosts = Annotated[Path | None, typer.Option(help="File of host keys for ssh.")]
Python = Annotated[
    str | None, typer.Option(help="Interpreter there that has numpy and the runtime.")
]
Storage = Annotated[str | None, typer.Option(help="Folder there that models are kept in.")]
BasedOn = Annotated[
    str, typer.Option("--like", help="The target whose runtime, scheme and limits it has.")
]
Folder = Annotated[Path, typer.Option(help="Where the files of your devices are.")]
Replace = Annotated[bool, typer.Option("--replace", help="An older file may go.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@device.command()
def add(
    name: Name,
    host: Host = None,
    serial: Serial = None,
    user: User = None,
    port: Port = None,
    identity: Identity = None,
    known_hosts: KnownHosts = None,
    python: Python = None,
    storage: Storage = None,
    like: BasedOn = _BASE,
    folder: Folder = _FOLDER,
    replace: Replace = False,
    as_json: AsJson = False,
) -> None:
    """Write a target file for a device; nothing is connected to."""
    from edgekd.profile.devices import device_target, way_to, write_device

    spec = _transport(
        host=host, serial=serial, user=user, port=port, identity=identity,
        known_hosts=known_hosts, python=python, folder=storage,
    )  # fmt: skip
    target = device_target(name, spec, like)
    path = folder / f"{name}.yaml"
    write_device(target, path, replace=replace)
    if as_json:
        print(json.dumps({"file": str(path), **target.model_dump(mode="json")}, indent=2))
    else:
        print(f"{path}: {way_to(target)}\nNext: edgekd device check {name}")


@device.command("list")
def list_devices(folder: Folder = _FOLDER, as_json: AsJson = False) -> None:
    """List the devices of the folder; nothing is connected to."""
    from edgekd.core.errors import EdgekdError
    from edgekd.profile.devices import device_files, way_to

    found = device_files(folder)
    rows: list[dict[str, Any]] = []
    for name, one in found.items():
        row: dict[str, Any] = {"name": name, "file": str(folder / f"{name}.yaml")}
        if isinstance(one, EdgekdError):
            rows.append({**row, "problem": " ".join(one.message.split())})
        else:
            about = {"reached": way_to(one), "transport": one.transport}
            rows.append({**row, **about, "backend": one.backend, "description": one.description})
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    if not rows:
        print(f"No devices in {folder}. Add one with `edgekd device add NAME --host HOST`.")
    width = max((len(row["name"]) for row in rows), default=0)
    for row in rows:
        text = row.get("problem") or f"{row['reached']}  {row['description']}"
        print(f"{row['name']:<{width}}  {text}")


@device.command()
def check(
    names: Annotated[
        list[str], typer.Argument(help="Devices of the folder, or paths of target files.")
    ],
    folder: Folder = _FOLDER,
    as_json: AsJson = False,
) -> None:
    """Connect to devices and say what is there.

    Python, runtimes and their versions, CPU, memory, free space, governor, temperature.
    """
    from edgekd.core.errors import EdgekdError
    from edgekd.profile.devices import check_device, find_device

    targets = [find_device(name, folder) for name in names]
    plain: list[dict[str, Any]] = []
    problems: list[EdgekdError] = []
    for target in targets:
        try:
            checked = check_device(target)
        except EdgekdError as e:
            problems.append(e)
            plain.append({"name": target.name, "ok": False, "problem": e.message})
            continue
        plain.append(_plain(checked))
        if not as_json:
            print(_text(checked))
    if as_json:
        print(json.dumps(plain, indent=2, allow_nan=False))
    for problem in problems:
        print(problem.message, file=sys.stderr)
    if problems:
        raise typer.Exit(problems[0].exit_code)


@device.command()
def learn(
    name: Name,
    host: Host = None,
    serial: Serial = None,
    user: User = None,
    port: Port = None,
    identity: Identity = None,
    known_hosts: KnownHosts = None,
    python: Python = None,
    storage: Storage = None,
    like: BasedOn = _BASE,
    folder: Folder = _FOLDER,
    replace: Replace = False,
    as_json: AsJson = False,
) -> None:
    """Connect to a device and write its target file.

    The file says what was found: the runtime's version, the CPU, the governor.

    Without --host or --serial the device is one of the folder, and its file is written anew.
    """
    from edgekd.profile.devices import (
        check_device,
        device_target,
        find_device,
        learned,
        write_device,
    )

    path = folder / f"{name}.yaml"
    known = host is None and serial is None and path.exists()
    if known:
        target = find_device(name, folder)
    else:
        spec = _transport(
            host=host, serial=serial, user=user, port=port, identity=identity,
            known_hosts=known_hosts, python=python, folder=storage,
        )  # fmt: skip
        target = device_target(name, spec, like)
    checked = check_device(target)
    found, above = learned(checked)
    write_device(found, path, replace=replace or known, above=above)
    if as_json:
        about = {"file": str(path), "target": found.model_dump(mode="json")}
        print(json.dumps({**_plain(checked), **about}, indent=2, allow_nan=False))
    else:
        print(f"{_text(checked)}\n\n{path}: {found.description}")


def _transport(**given: Any) -> dict[str, Any]:
    """The settings of the one transport that the options ask for."""
    from edgekd.core.errors import RecipeError

    set_ = {key: _absolute(value) for key, value in given.items() if value is not None}
    if ("host" in set_) == ("serial" in set_):
        raise RecipeError(
            "It is not clear how the device is reached.",
            expected="one of --host HOST (ssh) and --serial SERIAL (adb)",
        )
    return {"name": "ssh" if "host" in set_ else "adb", **set_}


def _absolute(value: Any) -> Any:
    """A path of this machine must mean the same from every folder."""
    return str(value.expanduser().absolute()) if isinstance(value, Path) else value


def _plain(checked: CheckedDevice) -> dict[str, Any]:
    """What was found, as JSON values."""
    described = checked.described
    return {
        "name": checked.target.name,
        "ok": True,
        "backend": checked.target.backend,
        "runtime": checked.runtime,
        "runtimes": described.runtimes,
        "free_bytes": described.free_bytes,
        "memory_bytes": described.memory_bytes,
        **described.environment.model_dump(mode="json"),
    }


def _text(checked: CheckedDevice) -> str:
    from edgekd.profile.devices import way_to

    described, machine = checked.described, checked.described.environment.machine
    state = described.environment.state
    zones = state.get("temperatures_c")
    degrees = (
        [t for t in zones.values() if isinstance(t, float)] if isinstance(zones, dict) else []
    )
    hottest = f"hottest zone {max(degrees):.0f} °C" if degrees else "no temperature to be read"
    governor = state.get("governor") or "not to be read"
    flags = " ".join(machine.cpu_flags) or "none that edgekd knows"
    runtimes = ", ".join(
        f"{name} {version or '-'}" for name, version in described.runtimes.items()
    )
    return (
        f"{checked.target.name}: reached, {way_to(checked.target)}\n"
        f"  {machine.cpu} ({machine.architecture}), {machine.cores_usable} cores usable\n"
        f"  instruction sets: {flags}\n"
        f"  {machine.os} {machine.kernel}, Python {machine.python}; {runtimes}\n"
        f"  {checked.target.backend} {checked.runtime} is in the target's range\n"
        f"  {described.memory_bytes / 2**30:.1f} GiB of memory, "
        f"{described.free_bytes / 2**30:.1f} GiB free for models\n"
        f"  governor {governor}, {hottest}"
    )
