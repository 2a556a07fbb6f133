"""`edgekd compress`: a teacher, data, a target and a budget in; proven artifacts out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def compress(
    recipe: Annotated[
        str, typer.Argument(help="A built-in recipe (digits) or the path of a YAML file.")
    ],
    override: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="Change a field: distill.epochs=5."),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(help="Replace the recipe's targets; may be repeated."),
    ] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(help="Add or replace a budget: 'p90<=2ms'; may be repeated."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The run folder; runs/<recipe name> by default.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the verdict as JSON on stdout.")
    ] = False,
) -> None:
    """Distil, quantize, export, prove and measure a student; exit 1 if a budget is missed.

    Call it again after an interruption, or with a changed recipe: finished work is reused.
    """
    from edgekd.cli._console import RichProgress, stdout
    from edgekd.pipeline import RUNS
    from edgekd.pipeline import compress as run
    from edgekd.report import table, verdict

    with RichProgress() as progress:
        report = run(
            recipe,
            out=out,
            overrides=override or (),
            targets=target or (),
            budgets=budget or (),
            progress=progress,
        )
    folder = out or Path(RUNS) / report.name
    if as_json:
        print(verdict.verdict(report).to_json(), end="")
    else:
        console = stdout()
        console.print(table.verdict_table(report, width=console.width))
        console.print(f"report: {folder / 'report.html'}", soft_wrap=True)
    raise typer.Exit(0 if report.met else 1)
