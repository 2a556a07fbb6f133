"""`edgekd doctor`: what this machine's runtimes can do, before any training."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Group
    from rich.table import Table

    from edgekd.core.progress import Progress
    from edgekd.core.target import Target
    from edgekd.core.types import Holds
    from edgekd.profile.probe import CheckUp


def doctor(
    target: Annotated[
        list[str] | None, typer.Option(help="Which to check; may be repeated. Default: all.")
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(help="Keep the results in this file, and use those that still hold."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Say what this machine can do: CPU, runtimes, and which operators have integer kernels.

    Every row of a table comes from a tiny model that was run through the target's runtime, or
    compiled by it for a device that is not here. A target that cannot be used here is shown as
    such, and gives the exit code if it was named.
    """
    import json

    from edgekd.cli._console import RichProgress, stdout
    from edgekd.core.target import load_target, target_names
    from edgekd.profile.environment import environment

    where = environment()
    asked = [load_target(name) for name in dict.fromkeys(target or target_names())]
    flags = where["machine"]["cpu_flags"]
    targets = [t.on(flags) if t.transport["name"] == "local" else t for t in asked]
    with RichProgress() as progress:
        found = check_up(targets, where["machine"], cache, progress)
    if as_json:
        plain = {
            "machine": where["machine"],
            "versions": where["versions"],
            "targets": [
                {
                    **one.model_dump(mode="json"),
                    "holds": t.scheme and t.scheme.holds.model_dump(),
                    "weight_bits": t.scheme and t.scheme.weight_bits,
                }
                for t, one in zip(targets, found, strict=True)
            ],
        }
        print(json.dumps(plain, indent=2, allow_nan=False))
    else:
        stdout().print(machine(where["machine"]), markup=False, soft_wrap=True)
        for t, one in zip(targets, found, strict=True):
            stdout().print(table(one))
            if t.scheme is not None:
                stdout().print(holding(t.scheme.holds))
            if t.scheme is not None and t.scheme.held:
                stdout().print(f"weights have {t.scheme.held}", markup=False, soft_wrap=True)
    problems = [one for one in found if one.exit_code]
    for one in problems:
        print(one.problem, file=sys.stderr)
    if problems and (target or len(problems) == len(found)):
        raise typer.Exit(problems[0].exit_code)


def check_up(
    targets: Sequence[Target], machine: Mapping[str, Any], cache: Path | None, progress: Progress
) -> list[CheckUp]:
    """Every target's check-up, from the cache where it still holds.

    Raises:
        RecipeError: The cache is another file, or a target's file is not valid.
        RunFolderError: The cache cannot be written.
    """
    from edgekd.profile.probe import probe, runtime_problem
    from edgekd.profile.probe_cache import Kept, fingerprint, read_cache, write_cache
    from edgekd.steps.low_bits import with_low_bits

    kept = dict(read_cache(cache).targets) if cache is not None else {}
    known = dict(kept)
    found = []
    for target in targets:
        one = runtime_problem(target)
        if one.version is not None:
            key = fingerprint(target, one, machine)
            old = kept.get(target.name)
            if old is not None and old.fingerprint == key:
                one = old.check_up
                progress.say(f"probe {target.name}: taken from {cache}")
            else:
                one = with_low_bits(probe(one, target, progress), target, progress)
                kept[target.name] = Kept(fingerprint=key, check_up=one)
        found.append(one)
    if cache is not None and kept != known:
        write_cache(kept, cache)
    return found


def machine(facts: Mapping[str, Any]) -> str:
    """The CPU in one line."""
    flags = " ".join(facts["cpu_flags"]) or "no instruction sets that edgekd knows"
    return f"{facts['cpu']}, {facts['cores_usable']} cores usable: {flags}"


def holding(holds: Holds) -> Table:
    """Which bits a target computes and stores at their real size."""
    from rich.table import Table

    made = Table("layers", "bits in int8 kernels", "bits stored, computed in float")
    for name, held in (("conv", holds.conv), ("linear", holds.matmul)):
        made.add_row(name, *(" ".join(map(str, b)) or "none" for b in (held.kernel, held.storage)))
    return made


def table(one: CheckUp) -> Group:
    """One target, for a terminal."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text  # as it is: a runtime's words may hold [brackets]

    version = f" {one.version}" if one.version else ""
    title = Text(f"{one.target} ({one.backend}{version})", style="bold")
    if not one.rows:
        return Group(title, Text("cannot be used here, see below"))
    made = Table("operator", "bits", "stored", "scales", "runs in", "seen")
    for row in one.rows:
        cells = (row.op, str(row.bits), row.stored, row.granularity, row.verdict)
        made.add_row(*cells, Text(row.reason))
    if one.problem:
        return Group(title, made, Text("cannot be measured here, see below"))
    return Group(title, made)
