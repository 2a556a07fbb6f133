"""Table rows and sentences of the HTML report that are made from more than one figure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgekd.report import format as fmt

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgekd.report.layer_bits import BitsOption, MixedBits, MixedTime
    from edgekd.report.model import BudgetResult, Measured, Report, Storage, TargetResult

#: standard deviation over mean above which the samples are called noisy
NOISY_CV = 0.25
#: layers listed per target; the slowest stay, so that the page keeps below 2 MB
MAX_LAYERS = 300
_UNKNOWN = "not known"


@dataclass(frozen=True, slots=True)
class LayerRows:
    """Layers in the order they run, each with its share of the slowest, in %."""

    rows: tuple[dict[str, Any], ...]
    left_out: int


def networks(report: Report) -> list[dict[str, str]]:
    """Parameters, MACs and bytes of teacher and student, and their ratios."""
    measures: tuple[tuple[str, str, Callable[[float], str]], ...] = (
        ("parameters", "parameters", fmt.count),
        ("MACs", "macs", fmt.count),
        ("float ONNX", "float_bytes", fmt.size),
    )
    found = []
    for title, field, write in measures:
        teacher, student = getattr(report.teacher, field), getattr(report.student, field)
        found.append(
            {
                "title": title,
                "teacher": _UNKNOWN if teacher is None else fmt.thin(write(teacher)),
                "student": _UNKNOWN if student is None else fmt.thin(write(student)),
                "ratio": fmt.ratio(teacher / student) if teacher and student else "–",
            }
        )
    return found


def memory(report: Report) -> list[dict[str, Any]]:
    """File size and peak memory of every artifact, and of the float models timed beside it."""
    found = []
    for target in report.targets:
        parts = (target.measured.artifact, options(target), storage(target.storage))
        note = "; ".join(filter(None, parts))
        found.append(_memory(target.measured, target.target, note))
        note = f"in the same runtime as {target.target}"
        if target.student_float is not None:
            found.append(_memory(target.student_float, "float student", note))
        if target.baseline is not None:
            found.append(_memory(target.baseline, "float teacher", note))
    return found


def layers(target: TargetResult) -> LayerRows:
    """At most `MAX_LAYERS` of the target's layers: the slowest, in the order they run."""
    times = [layer.get("time_us") for layer in target.layers]
    slowest = max((t for t in times if t is not None), default=0.0)
    order = sorted(range(len(times)), key=lambda i: (-(times[i] or 0.0), i))
    kept = sorted(order[:MAX_LAYERS])
    rows = [
        {
            "name": layer.get("name", ""),
            "op": layer.get("op", ""),
            "precision": layer.get("precision", ""),
            "reason": layer.get("reason", ""),
            "time_us": time,
            "share": round(100 * (time or 0.0) / slowest, 1) if slowest else 0,
        }
        for layer, time in ((target.layers[i], times[i]) for i in kept)
    ]
    return LayerRows(rows=tuple(rows), left_out=len(times) - len(kept))


def widths(mixed: MixedBits) -> list[int | None]:
    """Every width that some layer was offered; None, for float, is the last."""
    offered = {option.bits for layer in mixed.layers for option in layer.options}
    integers: list[int | None] = [*sorted(bits for bits in offered if bits is not None)]
    return [*integers, None] if None in offered else integers


def width(bits: int | None) -> str:
    """``4 bits`` or ``float``."""
    return "float" if bits is None else f"{bits} bits"


def slower(option: BitsOption) -> str:
    """``+3.2 us`` or ``same kernels``; empty where nothing was timed."""
    if option.slower_us is None:
        return ""
    return "same kernels" if option.same_kernels else fmt.microseconds(option.slower_us)


def pace(time: MixedTime) -> list[str]:
    """How bits were chosen under a latency, a sentence each."""
    measured = ", ".join(f"{fmt.duration(ms)} on {t}" for t, ms in time.measured_ms.items())
    kept = "within" if max(time.measured_ms.values()) <= time.budget_ms else "above"
    tries = fmt.plural(time.tries, "choice")
    return [
        f"measured as a whole: {measured} (certified median), {kept} the"
        f" {fmt.duration(time.budget_ms, exact=True)} asked for; {tries} timed",
        f"predicted: {fmt.duration(time.predicted_us / 1e3)}, the time with {time.widest_bits}"
        " bits everywhere and the chosen layers' own differences added up",
        f"measured: {fmt.duration(time.widest_us / 1e3)} with {time.widest_bits} bits everywhere;"
        f" timed again, that file differed by up to {fmt.duration(time.repeat_us / 1e3)}",
    ]


def evenly_fast(mixed: MixedBits) -> str:
    """Which widths make no difference in time because the kernels are the same."""
    if mixed.time is None:
        return ""
    free = [layer for layer in mixed.layers if layer.options]
    alike = [
        bits
        for bits in widths(mixed)
        if all(o.same_kernels for x in free for o in x.options if o.bits == bits)
    ]
    if len(alike) < 2:
        return ""
    words = ", ".join(width(bits) for bits in alike[:-1])
    return (
        f"{words} and {width(alike[-1])} run in the same kernels in every layer"
        " and count as equally fast"
    )


def timed(target: TargetResult) -> list[tuple[str, Measured]]:
    """The artifact, and what ran beside it: the float student, the float teacher."""
    found = [("artifact", target.measured)]
    if target.student_float is not None:
        found.append(("float student", target.student_float))
    if target.baseline is not None:
        found.append(("teacher", target.baseline))
    return found


def refused(target: TargetResult) -> list[str]:
    """``artifact: p99 is refused (needs 662 samples, has 300)``, a sentence per file."""
    found = []
    for name, measured in timed(target):
        reasons = [
            f"{p} is refused ({figure.reason})"
            for p in ("p50", "p90", "p95", "p99")
            if (figure := getattr(measured.latency_ms, p)).certified is None
        ]
        if reasons:
            found.append(f"{name}: {', '.join(reasons)}")
    return found


def noise(target: TargetResult) -> list[str]:
    """A sentence for every file whose samples scatter too much to trust small differences."""
    return [
        f"{name}: noisy, the standard deviation is {fmt.percent(measured.cv, 0)} of the mean "
        f"(above {fmt.percent(NOISY_CV, 0)})"
        for name, measured in timed(target)
        if measured.cv > NOISY_CV
    ]


def warnings(report: Report) -> list[str]:
    """The run's own warnings, and every figure that no clock measured."""
    found = list(report.warnings)
    for target in report.targets:
        found += [
            f"{target.target}, {name}: simulated, no clock ran on a device"
            for name, measured in timed(target)
            if measured.source != "measured"
        ]
    return found


def budget_use(budget: BudgetResult) -> str:
    """Figure over limit, ``31 %``; a dash where that says nothing."""
    if budget.value is None or budget.limit <= 0 or budget.value < 0:
        return "–"
    return fmt.percent(budget.value / budget.limit, 0)


def options(target: TargetResult) -> str:
    """How the artifact has to be opened to do what the report says; empty for plainly."""
    words = ", ".join(f"{name}={value}" for name, value in target.options.items())
    return f"open it with {words}" if words else ""


def storage(found: Storage | None) -> str:
    """What an artifact takes otherwise counted, in one line; empty where nobody counted."""
    if found is None:
        return ""
    parts = [f"zstd makes {fmt.size(found.zstd_bytes)} of the file"]
    if found.stored_bytes is not None and found.huffman_bytes is not None:
        parts.insert(
            0,
            f"weights with scales {fmt.size(found.stored_bytes)}, Huffman coded "
            f"{fmt.size(found.huffman_bytes)}",
        )
    return "; ".join(parts)


def source(measured: Measured) -> str:
    """``measured on this machine``, another one, or that it was not."""
    return f"measured on {measured.place}" if measured.source == "measured" else "simulated"


def _memory(measured: Measured, name: str, note: str) -> dict[str, Any]:
    peak, runtime = measured.peak_memory_mib, measured.runtime_memory_mib
    if peak is None:
        runtime_text = ""
    elif runtime is None:
        runtime_text = "the runtime's own share is not known"
    else:
        # a process can end below where it stood; nothing is taken from the runtime's share
        own = fmt.memory(max(peak - runtime, 0.0))
        runtime_text = (
            f"of the peak, {fmt.thin(fmt.memory(runtime))} is the runtime itself, "
            f"{fmt.thin(own)} the model"
        )
    return {
        "name": name,
        "mono": name == measured.target,
        "note": note,
        "size": fmt.thin(fmt.size(measured.size_bytes)),
        "peak": "not measured" if peak is None else fmt.thin(fmt.memory(peak)),
        "runtime": runtime_text,
    }
