"""`edgekd explain`: where the time of two models goes, and why one is not faster."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgekd.cli._options import DEFAULT_TARGET, AsJson, Inputs, MaxDuration, MinDuration, Shape

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from edgekd.core.target import Target
    from edgekd.profile.explain import Explanation

_MOST_PAIRS = 10


def explain(
    first: Annotated[Path, typer.Argument(help="The ONNX file to compare with: the float one.")],
    second: Annotated[
        Path | None,
        typer.Argument(help="The one that should be faster; leave it out to compare two targets."),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Where to run both; given twice, where to run each. Default: {DEFAULT_TARGET}."
        ),
    ] = None,
    shape: Shape = None,
    inputs: Inputs = None,
    min_duration: MinDuration = 1.0,
    max_duration: MaxDuration = 60.0,
    as_json: AsJson = False,
) -> None:
    """Say where the time of two models goes, what stayed in float and why, and what to change."""
    import json
    from dataclasses import asdict

    from rich.text import Text

    from edgekd.cli._console import RichProgress, stdout
    from edgekd.core.config import validate
    from edgekd.profile.explain import explain as explained
    from edgekd.profile.inputs import parse_shapes
    from edgekd.profile.measure import MeasureRule
    from edgekd.profile.pair import measure_pair

    rule = validate(
        MeasureRule,
        {"percentile": 50, "min_duration_s": min_duration, "max_duration_s": max_duration},
        source="the command line",
    )
    runs = what_runs_where(first, second, target or [])
    with RichProgress() as progress:
        pair = measure_pair(
            runs, rule, shapes=parse_shapes(shape or []), inputs_npz=inputs, progress=progress
        )
    found = explained(*pair)
    if as_json:
        print(json.dumps(asdict(found), indent=2, allow_nan=False))
    else:
        console = stdout()
        for part in parts(found):
            # a sentence in a pipe stays one line
            console.print(part, soft_wrap=isinstance(part, Text))


def what_runs_where(
    first: Path, second: Path | None, targets: list[str]
) -> tuple[tuple[Path, Target], tuple[Path, Target]]:
    """Two files on one target or each on its own, or one file on two targets.

    Raises:
        RecipeError: One file on one target, more than two targets, or no such target.
    """
    from edgekd.core.errors import RecipeError
    from edgekd.core.target import load_target

    if len(targets) > 2 or (second is None and len(targets) < 2):
        files = "one file" if second is None else "two files"
        raise RecipeError(
            "There are not two models to compare.",
            expected="two files and up to two --target, or one file and two --target",
            got=f"{files} and {len(targets)} --target",
            todo="see `edgekd explain --help`",
        )
    loaded = [load_target(name) for name in targets or [DEFAULT_TARGET]]
    return (first, loaded[0]), (second or first, loaded[-1])


def parts(found: Explanation) -> list[Text | Table]:
    """Totals, the layers that changed most and the findings, for a terminal."""
    from rich.text import Text  # as it is: file and node names may hold [brackets]

    one, two = found.first, found.second
    ratio = one.latency_us / two.latency_us
    lines = [Text(f"first:  {one.title}"), Text(f"second: {two.title}")]
    lines.append(Text(f"the second runs {ratio:.2f} times as fast as the first", style="bold"))
    said = [Text("what costs time in the second, the longest first:", style="bold")]
    for finding in found.findings:
        said.append(Text(f"- {finding.title}"))
        said.append(Text(f"  to do: {finding.what_to_change}"))
        said.append(Text(f"  read from: {finding.read_from}", style="dim"))
    if not found.findings:
        said = [Text("nothing in the second stands out.")]
    notes = [Text(f"note: {note}") for note in found.notes]
    return [*lines, _totals(found), _pairs(found), *said, *notes]


def _totals(found: Explanation) -> Table:
    from rich.table import Table

    made = Table("where the time goes")
    for column in ("first, us", "nodes", "second, us", "nodes"):
        made.add_column(column, justify="right")
    one, two = found.first, found.second
    for name in one.categories:
        a, b = one.categories[name], two.categories[name]
        made.add_row(name, f"{a.time_us:.1f}", str(a.count), f"{b.time_us:.1f}", str(b.count))
    made.add_section()
    made.add_row("sum of the layers", f"{one.layers_us:.1f}", "", f"{two.layers_us:.1f}", "")
    made.add_row("measured, median", f"{one.latency_us:.1f}", "", f"{two.latency_us:.1f}", "")
    return made


def _pairs(found: Explanation) -> Table:
    from rich.table import Table
    from rich.text import Text

    title = "layers by the file's names, the largest change first"
    made = Table("layer", "first", "us", "second", "us", title=title, title_justify="left")
    for pair in found.pairs[:_MOST_PAIRS]:
        times = ["-" if t is None else f"{t:.1f}" for t in (pair.first_us, pair.second_us)]
        made.add_row(Text(pair.name), Text(pair.first), times[0], Text(pair.second), times[1])
    return made
