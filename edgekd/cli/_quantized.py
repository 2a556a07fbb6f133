"""What `edgekd quantize` found, for a terminal and as JSON values."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from edgekd.profile.samples import RANDOM_NOTE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgekd.export.file_parity import OutputParity
    from edgekd.profile.percentiles import Percentile
    from edgekd.steps.quantize_file import Ladder, QuantizedFile

SCHEMA = "edgekd.quantized/1"
_WITHHELD = "withheld: random data says nothing about accuracy"


def as_plain(found: QuantizedFile) -> dict[str, Any]:
    """Everything but the raw samples, as JSON values."""
    made, ladder = found.made, found.ladder
    graph, quantized, samples = made.graph, made.quantized, made.samples
    real = samples.real
    return {
        "schema": SCHEMA,
        "file": str(made.source),
        "artifact": str(made.artifact),
        "sha256": found.profiles[1].artifact_sha256,
        "target": made.target.name,
        "calibration": {
            "real": real,
            "samples": len(samples.calibration),
            "held_out": len(samples.held_out),
            "note": samples.note if real else RANDOM_NOTE,
        },
        "opset": {"was": graph.opset_was, "is": graph.opset},
        "folded_batch_norms": list(graph.folded),
        "quantized": list(quantized.layers),
        "weight_bits": made.weight_bits,
        "skipped": dict(quantized.skipped),
        "float_operators": dict(quantized.floats),
        "parity": {
            "rounding": [asdict(o) for o in ladder.rounding] if real else None,
            "runtime": [asdict(o) for o in ladder.runtime],
            "total": [asdict(o) for o in ladder.total] if real else None,
            "withheld": None if real else _WITHHELD,
        },
        "kernels": asdict(made.kernels),
        "size_bytes": {"before": found.bytes_before, "after": found.bytes_after},
        "latency_ms": {
            "float": asdict(found.latencies[0]),
            "int8": asdict(found.latencies[1]),
        },
        "speedup": asdict(found.speedup),
        "explanation": asdict(found.explanation),
        "conditions": found.profiles[1].conditions.model_dump(),
        "environment": found.profiles[1].environment,
        "failures": list(found.failures),
    }


def parts(found: QuantizedFile) -> Iterator[Text | Table]:
    """For a terminal; texts as they are, because names of nodes may hold [brackets]."""
    made = found.made
    samples, kernels = made.samples, made.kernels
    yield Text(f"{made.source.name} -> {made.artifact} on {made.target.name}", style="bold")
    if not samples.real:
        yield Text(RANDOM_NOTE, style="bold red")
    yield Text(f"data: {samples.note}")
    yield from _layers(found)
    yield Text(
        f"convolutions and matrix products as the runtime runs them: {kernels.int8} int8, "
        f"{kernels.float} float; {kernels.unfused} Q/DQ nodes unfused"
    )
    for reason, count in Counter(kernels.floats.values()).most_common():
        yield Text(f"  {count} float: {reason}")
    yield Text(
        f"size: {found.bytes_before / 1024:,.0f} KiB -> {found.bytes_after / 1024:,.0f} KiB "
        f"({found.bytes_before / found.bytes_after:.2f} times smaller)"
    )
    if not samples.real:
        yield Text(f"int8 against the float file: {_WITHHELD}")
    yield _parity(found.ladder, real=samples.real)
    yield _latency(found)
    yield from _explained(found)


def _layers(found: QuantizedFile) -> Iterator[Text]:
    made = found.made
    graph, quantized = made.graph, made.quantized
    if graph.opset != graph.opset_was:
        yield Text(f"opset {graph.opset_was} -> {graph.opset}")
    if graph.folded:
        yield Text(f"batch norms folded into the convolution before them: {len(graph.folded)}")
    bits = f" (weights in {made.weight_bits} of 8 bits)" if made.weight_bits < 8 else ""
    yield Text(
        f"layers: {len(quantized.layers)} stored in int8{bits}, {len(quantized.skipped)} left "
        "in float"
    )
    if made.target.scheme is not None and made.target.scheme.held:
        yield Text(f"{made.target.name}: weights have {made.target.scheme.held}")
    for reason, count in Counter(quantized.skipped.values()).most_common():
        names = [name for name, why in quantized.skipped.items() if why == reason]
        shown = ", ".join(names[:3]) + (f" and {count - 3} more" if count > 3 else "")
        yield Text(f"  {count} float: {reason} ({shown})")
    if quantized.floats:
        listed = ", ".join(f"{count} {op}" for op, count in quantized.floats.items())
        yield Text(f"  other operators that read int8 layers in float: {listed}")


def _parity(ladder: Ladder, *, real: bool) -> Table:
    """SNR of each rung; the total in more ways, where the samples are real."""
    made = Table("output", title="signal-to-noise ratio, dB", title_justify="left")
    columns = ["rounding", "runtime", "total", "cosine", "largest difference", "equal decisions"]
    for column in columns if real else ["runtime"]:
        made.add_column(column, justify="right")
    for rounding, runtime, total in zip(
        ladder.rounding, ladder.runtime, ladder.total, strict=True
    ):
        if not real:
            made.add_row(Text(runtime.name), _snr(runtime))
            continue
        equal = "-" if total.agreement is None else f"{total.agreement:.2%}"
        made.add_row(
            Text(total.name),
            *map(_snr, (rounding, runtime, total)),
            f"{total.cosine:.6f}",
            f"{total.max_abs:.4g}",
            equal,
        )
    legend = "runtime: the runtime against the file as written"
    made.caption = (
        f"rounding: the file as written against float; {legend}; total: the runtime against float"
        if real
        else legend
    )
    made.caption_justify = "left"
    return made


def _snr(one: OutputParity) -> str:
    return "exact" if one.exact else "-" if one.snr_db is None else f"{one.snr_db:.1f}"


def _latency(found: QuantizedFile) -> Table:
    made = Table(
        "latency, in turns", title=f"inputs: {found.made.samples.note}", title_justify="left"
    )
    for column in ("float", "int8", "times faster", "n"):
        made.add_column(column, justify="right")
    one, two = found.latencies
    ratios = {"p50": found.speedup.speedup_p50, "p90": found.speedup.speedup_p90}
    for name in ("p50", "p90", "p95", "p99"):
        a, b = getattr(one, name), getattr(two, name)
        ratio = ratios.get(name)
        times = "-" if ratio is None else f"{ratio:.2f}"
        made.add_row(f"{name} certified", _ms(a), _ms(b), times, f"{a.n} / {b.n}")
    return made


def _ms(figure: Percentile) -> str:
    return figure.reason or f"{figure.certified:.3f} ms"


def _explained(found: QuantizedFile) -> Iterator[Text]:
    findings = found.explanation.findings
    said = "what costs time in the int8 file, the longest first:"
    yield Text(said if findings else "nothing in the int8 file stands out.", style="bold")
    for finding in findings:
        yield Text(f"- {finding.title}")
        yield Text(f"  to do: {finding.what_to_change}")
        yield Text(f"  read from: {finding.read_from}", style="dim")
    for note in found.explanation.notes:
        yield Text(f"note: {note}")
