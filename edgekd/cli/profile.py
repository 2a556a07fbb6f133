"""`edgekd profile`: latency, memory and kernels of any ONNX file."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Group

    from edgekd.profile.file import FileProfile

_DEFAULT_TARGET = "x86-onnxruntime-fp32"


def profile(
    model: Annotated[Path, typer.Argument(help="An ONNX file, from edgekd or from anywhere.")],
    target: Annotated[
        list[str] | None,
        typer.Option(help=f"Where to run it; may be repeated. Default: {_DEFAULT_TARGET}."),
    ] = None,
    shape: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=1x3x320x320", help="Size of an input that is left open."),
    ] = None,
    inputs: Annotated[
        Path | None, typer.Option(help="Your own inputs, an .npz; random ones without.")
    ] = None,
    percentile: Annotated[
        int, typer.Option(help="Highest percentile to certify: 90 needs 64 runs, 99 needs 662.")
    ] = 99,
    min_duration: Annotated[
        float, typer.Option(help="Timed seconds on each target, at least.")
    ] = 1.0,
    max_duration: Annotated[
        float, typer.Option(help="Timed seconds on each target, at most.")
    ] = 60.0,
    out: Annotated[
        Path | None,
        typer.Option(help="Write the raw samples here; with several targets one file for each."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Time an ONNX file, weigh it, and count the kernels that it really runs in."""
    import json

    from edgekd.cli._console import RichProgress, stdout
    from edgekd.core.config import validate
    from edgekd.core.target import load_target
    from edgekd.profile.file import profile_file
    from edgekd.profile.inputs import parse_shapes
    from edgekd.profile.measure import MeasureRule
    from edgekd.profile.store import write_profile

    rule = validate(
        MeasureRule,
        {
            "percentile": percentile,
            "min_duration_s": min_duration,
            "max_duration_s": max_duration,
        },
        source="the command line",
    )
    names = list(dict.fromkeys(target or [_DEFAULT_TARGET]))
    with RichProgress() as progress:
        found = profile_file(
            model,
            [load_target(name) for name in names],
            rule,
            shapes=parse_shapes(shape or []),
            inputs_npz=inputs,
            progress=progress,
        )
    if out is not None:
        for one, path in zip(found, out_paths(out, names), strict=True):
            write_profile(one.profile, path)
    if as_json:
        print(json.dumps([as_plain(one) for one in found], indent=2, allow_nan=False))
        return
    for one in found:
        stdout().print(table(one))


def out_paths(out: Path, targets: list[str]) -> list[Path]:
    """One file for each target; with several, the target's name goes before the suffix."""
    if len(targets) == 1:
        return [out]
    return [out.with_name(f"{out.stem}.{Path(name).stem}{out.suffix}") for name in targets]


def as_plain(one: FileProfile) -> dict[str, Any]:
    """Everything but the raw samples, as JSON values."""
    from dataclasses import asdict

    return {
        "file": str(one.path),
        "sha256": one.profile.artifact_sha256,
        "target": one.target.name,
        "latency_ms": asdict(one.percentiles),
        "size_bytes": one.size_bytes,
        "peak_memory_mib": one.memory.peak_mib,
        "runtime_memory_mib": one.memory.runtime_mib,
        "kernels": asdict(one.kernels),
        "layers": [asdict(layer) for layer in one.layers],
        "conditions": one.profile.conditions.model_dump(),
        "environment": one.profile.environment,
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
    return Group(title, made, *map(Text, (_under(one), *_facts(one))))


def _under(one: FileProfile) -> str:
    conditions = one.profile.conditions
    threads = f"{conditions.threads} thread{'s' if conditions.threads > 1 else ''}"
    return f"{threads}, batch {conditions.batch_size}, inputs: {conditions.inputs}"


def _facts(one: FileProfile) -> list[str]:
    kernels, memory = one.kernels, one.memory
    lines = [
        f"file {one.size_bytes / 1024:,.0f} KiB; peak memory {memory.peak_mib:.0f} MiB, "
        f"of which the bare runtime {memory.runtime_mib:.0f} MiB",
        f"convolutions and matrix products: {kernels.int8} int8, {kernels.float} float; "
        f"{kernels.unfused} Q/DQ nodes unfused",
    ]
    for reason, count in Counter(kernels.floats.values()).most_common():
        lines.append(f"  {count} float: {reason}")
    return lines
