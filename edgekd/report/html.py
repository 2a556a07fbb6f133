"""The report for people: one HTML file that loads nothing and runs no script.

The templates say what is shown and in which order; `rows` prepares what takes more than one
figure; `summary` and `format` choose the words. Every value is escaped.
"""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from edgekd.core.config import dump_yaml
from edgekd.report import format as fmt
from edgekd.report import rows, summary
from edgekd.report.budgets import describe_miss, worst_miss
from edgekd.report.charts import accuracy_svg, drawn_budgets, latency_svg

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgekd.report.model import Report, TargetResult

TEMPLATES = Path(__file__).parent / "templates"
#: the order of the page: the proof first, where it comes from last
_SECTIONS = (
    "verdict", "budgets", "accuracy", "latency", "parity", "kernels", "time", "bits", "points",
    "size", "provenance",
)  # fmt: skip


def render(report: Report) -> str:
    """The whole page as text; the same report gives the same bytes.

    Args:
        report: What the run found. No file is read but the templates, and no clock.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(_filters(report))
    # the two that are markup already: ElementTree escaped their text when it wrote them
    environment.filters["latency_chart"] = lambda t: Markup(latency_svg(t))  # noqa: S704
    return environment.get_template("report.html.j2").render(
        report=report,
        sections=[f"{name}.html.j2" for name in _SECTIONS],
        headline=summary.headline(report),
        closest=summary.closest_point(report),
        unmet=sum(not t.met for t in report.targets),
        facts=summary.facts(report),
        gains=summary.gains(report),
        warnings=rows.warnings(report),
        network_rows=rows.networks(report),
        memory_rows=rows.memory(report),
        int8=any(t.precision == "int8" for t in report.targets),
        hashes=_hashes(report),
        recipe_yaml=dump_yaml(report.model_dump(mode="json")["recipe"]),
        accuracy_chart=Markup(accuracy_svg(report)),  # noqa: S704
    )


def _filters(report: Report) -> dict[str, Callable[..., Any]]:
    def tight(write: Callable[..., str]) -> Callable[..., str]:
        return lambda *args: fmt.thin(write(*args))

    return {
        # numbers
        "ms": tight(fmt.duration),
        "size": tight(fmt.size),
        "count": tight(fmt.count),
        "percent": tight(fmt.percent),
        "signed": tight(lambda value: fmt.points(value, signed=True)),
        "ratio": fmt.ratio,
        "seconds": tight(fmt.seconds),
        "difference": fmt.difference,
        "thin": fmt.thin,
        "increase": lambda value: f"{value:+.4f}".replace("-", "−"),
        "widths": rows.widths,
        "width": rows.width,
        "slower": tight(rows.slower),
        "pace": lambda time: [fmt.glued(line) for line in rows.pace(time)],
        "evenly_fast": rows.evenly_fast,
        "short_hash": fmt.short_hash,
        "mean": fmean,
        # budgets
        "value": tight(lambda b: fmt.in_unit(b.value, b.unit)),
        "limit": tight(lambda b: fmt.in_unit(b.limit, b.unit, exact=True)),
        "used": tight(rows.budget_use),
        # targets
        "line": lambda t: fmt.glued(summary.target_line(t, report.metric)),
        "worst_miss": _worst_miss,
        "drop": tight(lambda t: fmt.points(summary.drop_points(t))),
        "runtime": lambda t: f"{t.backend} {t.runtime_version}, {t.precision}",
        "drawn": drawn_budgets,
        "undrawn": lambda t: [
            b for b in t.budgets if b.unit == "ms" and b not in drawn_budgets(t)
        ],
        "ladder_ok": lambda t: all(rung.ok is not False for rung in t.ladder),
        "timed": rows.timed,
        "refused": rows.refused,
        "noise": rows.noise,
        "layer_rows": rows.layers,
        "source": rows.source,
        "fields": lambda model: model.model_dump(mode="json"),
        # words
        "sentence": lambda text: fmt.glued(text[:1].upper() + text[1:]) + ".",
        "glued": fmt.glued,
        "utc": _utc,
    }


def _utc(iso: str) -> str:
    """``2025-11-20T20:36:05+00:00`` and ``…Z`` alike: ``2025-11-20 20:36:05 UTC``."""
    return iso.replace("T", " ").removesuffix("Z").removesuffix("+00:00") + " UTC"


def _worst_miss(target: TargetResult) -> str:
    miss = worst_miss(target)
    return fmt.glued(describe_miss(miss)) if miss else ""


def _hashes(report: Report) -> list[tuple[str, str]]:
    """The run's hashes, then those of every file that was measured."""
    files = [(m.artifact, m.sha256) for t in report.targets for _, m in rows.timed(t)]
    return [*report.hashes.items(), *dict(files).items()]
