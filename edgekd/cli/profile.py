"""`edgekd profile`: latency, memory and kernels of any ONNX file."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekd.cli._options import DEFAULT_TARGET, AsJson, Inputs, MaxDuration, MinDuration, Shape

if TYPE_CHECKING:
    from rich.console import Group

    from edgekd.profile.file import FileProfile
    from edgekd.profile.sustained import Sustained


def profile(
    model: Annotated[Path, typer.Argument(help="An ONNX file, from edgekd or from anywhere.")],
    target: Annotated[
        list[str] | None,
        typer.Option(help=f"Where to run it; may be repeated. Default: {DEFAULT_TARGET}."),
    ] = None,
    shape: Shape = None,
    inputs: Inputs = None,
    percentile: Annotated[
        int, typer.Option(help="Highest percentile to certify: 90 needs 64 runs, 99 needs 662.")
    ] = 99,
    min_duration: MinDuration = 1.0,
    max_duration: MaxDuration = 60.0,
    sustained: Annotated[
        float,
        typer.Option(
            metavar="MINUTES",
            help="Then run each file back to back this long: throttling, energy.",
        ),
    ] = 0.0,
    out: Annotated[
        Path | None,
        typer.Option(help="Write the raw samples here; with several targets one file for each."),
    ] = None,
    keep: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Add the profiles to this shelf, for good."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Time an ONNX file, weigh it, and count the kernels that it really runs in."""
    import json
    import sys

    from edgekd.cli._console import RichProgress, stdout
    from edgekd.core.config import validate
    from edgekd.core.errors import RecipeError
    from edgekd.core.target import load_target
    from edgekd.profile.file import profile_file
    from edgekd.profile.inputs import parse_shapes
    from edgekd.profile.measure import MeasureRule
    from edgekd.profile.store import write_profile

    if not 0 <= sustained <= 24 * 60:
        raise RecipeError(
            "--sustained is out of range.", expected="0 to 1440 minutes", got=f"{sustained:g}"
        )
    rule = validate(
        MeasureRule,
        {
            "percentile": percentile,
            "min_duration_s": min_duration,
            "max_duration_s": max_duration,
        },
        source="the command line",
    )
    names = list(dict.fromkeys(target or [DEFAULT_TARGET]))
    with RichProgress() as progress:
        found = profile_file(
            model,
            [load_target(name) for name in names],
            rule,
            shapes=parse_shapes(shape or []),
            inputs_npz=inputs,
            sustained_s=60 * sustained,
            progress=progress,
        )
    if out is not None:
        for one, path in zip(found, out_paths(out, names), strict=True):
            write_profile(one.profile, path)
            if one.sustained is not None:
                long_run = path.with_name(f"{path.stem}.sustained{path.suffix}")
                write_profile(one.sustained.profile, long_run)
    if keep is not None:
        from edgekd.profile.shelf import keep as put

        for one in found:
            put(one.profile, keep, title=one.path.stem)
    if as_json:
        print(json.dumps([as_plain(one) for one in found], indent=2, allow_nan=False))
    else:
        for one in found:
            stdout().print(table(one))
    failures = [one.failure for one in found if one.failure is not None]
    for failure in failures:
        print(failure.message, file=sys.stderr)
    if failures:
        raise typer.Exit(failures[0].exit_code)


def out_paths(out: Path, targets: list[str]) -> list[Path]:
    """One file for each target; with several, the target's name goes before the suffix."""
    if len(targets) == 1:
        return [out]
    return [out.with_name(f"{out.stem}.{Path(name).stem}{out.suffix}") for name in targets]


def as_plain(one: FileProfile) -> dict[str, Any]:
    """Everything but the raw samples, as JSON values."""
    from dataclasses import asdict

    from edgekd.profile.percentiles import coefficient_of_variation

    return {
        "file": str(one.path),
        "sha256": one.profile.artifact_sha256,
        "target": one.target.name,
        "latency_ms": asdict(one.percentiles),
        "coefficient_of_variation": coefficient_of_variation(one.profile),
        "sustained": None if one.sustained is None else _plain_sustained(one.sustained),
        "failure": None if one.failure is None else one.failure.message,
        "size_bytes": one.size_bytes,
        "peak_memory_mib": one.memory and one.memory.peak_mib,
        "runtime_memory_mib": one.memory and one.memory.runtime_mib,
        "source": one.profile.source,
        "kernels": asdict(one.kernels),
        "layers": [asdict(layer) for layer in one.layers],
        "conditions": one.profile.conditions.model_dump(),
        "environment": one.profile.environment,
    }


def _plain_sustained(run: Sustained) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "duration": run.profile.conditions.duration,
        "runs": len(run.profile.samples_ns),
        "slowdown": run.slowdown,
        "throttled_at_s": run.throttled_at_s,
        "energy": [asdict(energy) for energy in run.energy],
        "windows": [asdict(window) for window in run.windows],
    }


def table(one: FileProfile) -> Group:
    """Latency and what surrounds it, for a terminal."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text  # as it is: file and node names may hold [brackets]

    made = Table("latency")
    for column in ("certified", "empirical", "n"):
        made.add_column(column, justify="right")
    for name in ("p50", "p90", "p95", "p99"):
        figure = getattr(one.percentiles, name)
        certified = figure.reason or f"{figure.certified:.3f} ms"
        empirical = "-" if figure.empirical is None else f"{figure.empirical:.3f} ms"
        made.add_row(name, certified, empirical, str(figure.n))
    title = Text(f"{one.path.name} on {one.target.name}", style="bold")
    lines = (_under(one), *_noise(one), *_sustained(one), *_facts(one))
    return Group(title, made, *map(Text, lines))


def _under(one: FileProfile) -> str:
    conditions = one.profile.conditions
    threads = f"{conditions.threads} thread{'s' if conditions.threads > 1 else ''}"
    return f"{threads}, batch {conditions.batch_size}, inputs: {conditions.inputs}"


def _noise(one: FileProfile) -> list[str]:
    from edgekd.profile.percentiles import QUIET, coefficient_of_variation

    found = coefficient_of_variation(one.profile)
    if found <= QUIET:
        return []
    return [
        f"warning: the samples scatter by {found:.0%} of their mean (quiet machines stay below "
        f"{QUIET:.0%}): trust ratios from one run, not these times"
    ]


def _sustained(one: FileProfile) -> list[str]:
    run = one.sustained
    lines = [] if one.failure is None else [f"the long run ended early: {one.failure.failed}"]
    if run is None:
        return lines
    at = run.throttled_at_s
    lasting = "no lasting slowdown" if at is None else f"slower from {at:.0f} s on, to the end"
    if run.slowdown is None:
        lasting = "too few windows to tell a slowdown"
    else:
        lasting = f"the last windows {run.slowdown:.2f} times the first; {lasting}"
    lines.append(
        f"{run.profile.conditions.duration}: {len(run.profile.samples_ns):,} runs, {lasting}"
    )
    if not run.energy:
        lines.append("  energy: this machine has no counter that can be read")
    lines += [
        f"  energy: {energy.per_inference_mj:.3g} mJ per inference ({energy.counter}: all that "
        f"it counts, {energy.joules:.1f} J)"
        for energy in run.energy
    ]
    return lines


def _facts(one: FileProfile) -> list[str]:
    kernels, memory = one.kernels, one.memory
    weight = "peak memory not measured"
    if memory is not None:
        weight = (
            f"peak memory {memory.peak_mib:.0f} MiB, "
            f"of which the bare runtime {memory.runtime_mib:.0f} MiB"
        )
    lines = [
        f"file {one.size_bytes / 1024:,.0f} KiB; {weight}",
        f"convolutions and matrix products: {kernels.int8} int8, {kernels.float} float; "
        f"{kernels.unfused} Q/DQ nodes unfused",
    ]
    for reason, count in Counter(kernels.floats.values()).most_common():
        lines.append(f"  {count} float: {reason}")
    return lines
