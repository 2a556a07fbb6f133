"""The verdict as a short Markdown table, for a README or a comment on a pull request."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from edgekd.report import format as fmt
from edgekd.report.budgets import title
from edgekd.report.rows import evenly_fast, options, pace, slower, storage, width, widths
from edgekd.report.summary import closest_point, drop_points, facts, headline

if TYPE_CHECKING:
    from edgekd.report.layer_bits import BitsOption, MixedBits, SharedPoints
    from edgekd.report.model import BudgetResult, Report, TargetResult

_HEAD = ("target", "budgets", "p90 certified", "vs float teacher", "size", "peak memory",
         "{metric}", "drop", "int8 kernels")  # fmt: skip

_BARE_BAR = re.compile(r"(?<!\\)\|")
_ESCAPED_BAR = r"\\|"
_BACKTICKS = re.compile("`+")


def render(report: Report) -> str:
    """Headline, one row per target, every missed budget, key figures, and the command."""
    word = "✅ Met" if report.met else "❌ Not met"
    head = [cell.format(metric=_text(report.metric)) for cell in _HEAD]
    lines = [f"**{word}**: {_code(report.name)}. {headline(report)}.", ""]
    lines += [_row(head), _row(["---", *["---:"] * (len(_HEAD) - 1)])]
    lines += [_row(_cells(target)) for target in report.targets]
    closest = closest_point(report)
    if closest:
        lines += ["", _text(closest[:1].upper() + closest[1:]) + "."]
    lines += [
        "",
        *(f"- {_text(f'{f.value} {f.label} ({f.detail}; {f.source})')}" for f in facts(report)),
    ]
    lines += [
        f"- {_code(t.target)}: {_text(storage(t.storage))} (counted)"
        for t in report.targets
        if t.storage is not None
    ]
    lines += [
        f"- {_code(t.target)}: {_text(options(t))}, as it was here"
        for t in report.targets
        if t.options
    ]
    if report.skipped:
        lines.append(f"- left in float: {', '.join(_code(name) for name in report.skipped)}")
    lines += _causes(report)
    for mixed in report.mixed:
        lines += ["", *_bits(mixed)]
    for shared in report.points:
        lines += ["", *_points(shared)]
    lines += ["", f"Reproduce: {_code(report.command)}", ""]
    return "\n".join(lines)


def _causes(report: Report) -> list[str]:
    """What costs most time in each artifact."""
    first = [(t, t.explanation.findings[0]) for t in report.targets if t.explanation
             and t.explanation.findings]  # fmt: skip
    return [
        f"- costs most on {_code(t.target)}: {_text(f.title)}; to do: {_text(f.what_to_change)}"
        for t, f in first
    ]


def _cells(target: TargetResult) -> list[str]:
    measured = target.measured
    p90, peak = measured.latency_ms.p90, measured.peak_memory_mib
    kernels = target.kernels
    return [
        _code(target.target),
        ("✅ " if target.met else "❌ ") + _budgets(target.budgets),
        f"refused: {_text(p90.reason or '')}"
        if p90.certified is None
        else f"{fmt.duration(p90.certified)} (n = {fmt.count(p90.n)})",
        fmt.ratio(target.speedup_p90) if target.speedup_p90 else "–",
        fmt.size(measured.size_bytes),
        "not measured" if peak is None else fmt.memory(peak),
        fmt.percent(target.accuracy.artifact),
        fmt.points(drop_points(target)),
        f"{kernels.int8} of {kernels.int8 + kernels.float}"
        if target.precision == "int8"
        else target.precision,
    ]


def _budgets(budgets: tuple[BudgetResult, ...]) -> str:
    if not budgets:
        return "none set"
    missed = [title(b.name) for b in budgets if not b.met]
    met = f"{len(budgets) - len(missed)} of {len(budgets)}"
    return f"{met}, missed: {', '.join(missed)}" if missed else met


def _bits(mixed: MixedBits) -> list[str]:
    """Bits of every layer, with the measured increase of the loss at each width offered."""
    offered = widths(mixed)
    head = ["layer", "weights", "bits", "stored", *(f"loss at {width(bits)}" for bits in offered)]
    lines = [_row(head), _row(["---", *["---:"] * (len(head) - 1)])]
    for x in mixed.layers:
        loss = {option.bits: _cost(option) for option in x.options}
        chosen = "float" if x.bits is None else str(x.bits)
        cells = [_code(x.layer), fmt.count(x.weights), chosen, fmt.size(x.size_bytes)]
        lines.append(_row([*cells, *(loss.get(bits, "–") for bits in offered)]))
    scheme = f" for {_code(mixed.scheme)}" if mixed.scheme else ""
    taken = fmt.size(mixed.size_bytes)
    if mixed.budget_bytes is not None:
        taken += f" of {fmt.size(mixed.budget_bytes)}"
    lines += ["", f"Bits per layer{scheme}: {taken} for all weights with their scales."]
    if mixed.time is not None:
        facts = (evenly_fast(mixed), *pace(mixed.time))
        lines += ["", *(f"- {_text(fact)}" for fact in facts if fact)]
    return lines


def _points(shared: SharedPoints) -> list[str]:
    """Codebook points of every layer before and after they were shared out."""
    lines = [_row(["layer", "gradient norm", "points before", "points after"])]
    lines.append(_row(["---", *["---:"] * 3]))
    lines += [
        _row([_code(x.layer), fmt.difference(x.norm), fmt.count(x.before), fmt.count(x.after)])
        for x in shared.layers
    ]
    scheme = f" for {_code(shared.scheme)}" if shared.scheme else ""
    seen = f"gradients of {fmt.count(shared.samples)} train samples"
    return [*lines, "", f"Codebook points{scheme}, shared out by the {seen}."]


def _cost(option: BitsOption) -> str:
    """The loss of a width and, where it was timed, what it takes more."""
    time = slower(option)
    return f"{option.loss_increase:+.4f}" + (f", {time}" if time else "")


def _row(cells: list[str]) -> str:
    """A bar inside a cell would end it, even in a code span; `_text` has escaped its own."""
    return f"| {' | '.join(_BARE_BAR.sub(_ESCAPED_BAR, cell) for cell in cells)} |"


def _code(text: str) -> str:
    """A code span, in which no markup, no HTML and no @mention is read.

    The fence is longer than every run of backticks inside, as CommonMark asks.
    """
    flat = " ".join(text.split())
    fence = "`" * (max((len(run) for run in _BACKTICKS.findall(flat)), default=0) + 1)
    return f"`{flat}`" if fence == "`" else f"{fence} {flat} {fence}"


def _text(text: str) -> str:
    """Plain words: everything that Markdown or HTML would read is escaped."""
    flat = " ".join(text.split())
    for sign in ("\\", "`", "*", "_", "[", "]", "|", "#", "~"):
        flat = flat.replace(sign, "\\" + sign)
    return (
        flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("@", "&#64;")
    )
