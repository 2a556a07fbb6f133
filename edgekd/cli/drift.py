"""`edgekd drift`: the same file under two versions of a runtime."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgekd.cli._options import DEFAULT_TARGET, AsJson, Inputs, Shape

if TYPE_CHECKING:
    from rich.table import Table

    from edgekd.profile.drift import Drift, Side


def drift(
    model: Annotated[Path, typer.Argument(help="An ONNX file.")],
    python: Annotated[
        list[str],
        typer.Option(help="Interpreter of an environment with the runtime; given twice."),
    ],
    target: Annotated[
        str, typer.Option(help="Backend, options and conditions for both.")
    ] = DEFAULT_TARGET,
    shape: Shape = None,
    inputs: Inputs = None,
    rounds: Annotated[int, typer.Option(min=1, max=100, help="Turns of each environment.")] = 5,
    duration: Annotated[float, typer.Option(help="Timed seconds of each turn, at least.")] = 0.5,
    max_slowdown: Annotated[
        float | None, typer.Option(help="Fail above this ratio of second to first, e.g. 1.05.")
    ] = None,
    max_difference: Annotated[
        float | None,
        typer.Option(help="Fail where an output moved by more, as a share of its spread."),
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Compare what one file gives, how fast and in which kernels, in two Python environments."""
    import json
    from dataclasses import asdict
    from tempfile import TemporaryDirectory

    from edgekd.cli._console import RichProgress, stdout
    from edgekd.core.config import validate
    from edgekd.core.errors import RecipeError
    from edgekd.core.target import load_target
    from edgekd.profile.drift import drift as drifted
    from edgekd.profile.inputs import parse_shapes
    from edgekd.profile.measure import MeasureRule
    from edgekd.profile.transports.interpreter import Interpreter

    if len(python) != 2:
        raise RecipeError(
            "Two environments are compared.",
            expected="--python FIRST --python SECOND",
            got=f"{len(python)} --python",
        )
    rule = validate(
        MeasureRule, {"percentile": 50, "min_duration_s": duration}, source="the command line"
    )
    with (
        RichProgress() as progress,
        TemporaryDirectory(prefix="edgekd-drift-") as folder,
        # a folder each: a device lets one measurement in, and these two take turns
        Interpreter(python=python[0], folder=f"{folder}/first").connect() as first,
        Interpreter(python=python[1], folder=f"{folder}/second").connect() as second,
    ):
        found = drifted(
            model,
            load_target(target),
            [(python[0], first), (python[1], second)],
            rule,
            rounds=rounds,
            shapes=parse_shapes(shape or []),
            inputs_npz=inputs,
            progress=progress,
        )
    complaints = _complaints(found, max_slowdown, max_difference)
    if as_json:
        plain = {**asdict(found), "ratio": found.ratio, "complaints": complaints}
        print(json.dumps(plain, indent=2, allow_nan=False))
    else:
        console = stdout()
        console.print(_table(found))
        for line in _lines(found):
            console.print(line, markup=False, soft_wrap=True)
        for line in complaints:
            console.print(f"✗ {line}", markup=False, soft_wrap=True)
    return 1 if complaints else 0


def _complaints(
    found: Drift, max_slowdown: float | None, max_difference: float | None
) -> list[str]:
    said = []
    if max_slowdown is not None and found.ratio > max_slowdown:
        said.append(f"{found.ratio:.3f} times the first's median, {max_slowdown:g} allowed")
    for output in found.outputs:
        moved = output.mean_of_spread
        if moved is None:  # the first's values are all the same: any difference is all of it
            moved = 0.0 if output.equal else float("inf")
        if max_difference is not None and moved > max_difference:
            said.append(f"{output.name} moved by {moved:.3g} of its spread")
    return said


def _table(found: Drift) -> Table:
    from statistics import median

    from rich.table import Table

    made = Table("", "first", "second")
    one, two = found.first, found.second
    rows: list[tuple[str, str, str]] = [
        ("environment", one.name, two.name),
        ("runtime", one.runtime, two.runtime),
        ("median", f"{median(one.medians_ms):.3f} ms", f"{median(two.medians_ms):.3f} ms"),
        ("kernels", _kernels(one), _kernels(two)),
    ]
    for row in rows:
        made.add_row(*row)
    return made


def _kernels(side: Side) -> str:
    count = side.kernels
    return f"{count.int8} int8, {count.float} float, {count.unfused} Q/DQ unfused"


def _lines(found: Drift) -> list[str]:
    low, high = min(found.ratios), max(found.ratios)
    lines = [
        f"second / first: {found.ratio:.3f}, median of {len(found.ratios)} rounds in turns "
        f"({low:.3f} to {high:.3f})"
    ]
    for output in found.outputs:
        share = output.mean_of_spread
        moved = "" if share is None else f", on average {share:.2g} of its spread"
        text = "the same, bit for bit" if output.equal else f"up to {output.largest:.3g}{moved}"
        lines.append(f"{output.name}: {text}")
    return lines
