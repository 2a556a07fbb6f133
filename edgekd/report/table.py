"""The verdict as a table in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekd.report import format as fmt
from edgekd.report.summary import closest_point, drop_points, headline

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from edgekd.report.model import Report, TargetResult

#: columns from this width on; below it peak memory is left to the report
_WIDE = 100


def verdict_table(report: Report, *, width: int = _WIDE) -> Table:
    """One row per target: budgets met of those set, then its figures; the closest point below.

    Args:
        report: What the run found.
        width: Of the terminal, in columns. From 100 on peak memory is shown too; a narrower
            terminal (80) keeps every other column and folds the names.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    good, bad = "bold green", "bold red"
    word = Text("met" if report.met else "not met", style=good if report.met else bad)
    heading = Text.assemble((report.name, "bold"), ": ", word, ". ", headline(report), ".")
    closest = closest_point(report)
    table = Table(
        title=heading,
        title_justify="left",
        title_style="",
        caption=Text(closest[:1].upper() + closest[1:] + ".") if closest else None,
        caption_justify="left",
        caption_style="",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
    )
    wide = width >= _WIDE
    table.add_column("target", overflow="fold", min_width=12)
    titles = ["met", "p90", "faster", "size", *(["memory"] if wide else []), report.metric]
    for title in [*titles, "drop", "int8"]:
        # the heading is the user's metric or ours; Text keeps brackets in it from being markup
        table.add_column(Text(title), justify="right", no_wrap=True)
    for target in report.targets:
        budgets = Text(_budgets(target), style=good if target.met else bad)
        table.add_row(Text(target.target), budgets, *_figures(target, wide=wide))
    return table


def _budgets(target: TargetResult) -> str:
    met, n = sum(b.met for b in target.budgets), len(target.budgets)
    return f"{'✓' if target.met else '✗'} {met}/{n}" if n else "–"


def _figures(target: TargetResult, *, wide: bool) -> list[Text]:
    from rich.text import Text

    measured, kernels = target.measured, target.kernels
    p90, peak = measured.latency_ms.p90.certified, measured.peak_memory_mib
    int8 = f"{kernels.int8}/{kernels.int8 + kernels.float}"
    cells = [
        "refused" if p90 is None else fmt.duration(p90),
        fmt.ratio(target.speedup_p90) if target.speedup_p90 else "–",
        fmt.size(measured.size_bytes),
        *(["–" if peak is None else fmt.memory(peak)] if wide else []),
        fmt.percent(target.accuracy.artifact),
        fmt.points(drop_points(target)),
        int8 if target.precision == "int8" else "float",
    ]
    return [Text(cell) for cell in cells]
