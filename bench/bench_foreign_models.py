"""Eleven ONNX models that nobody here wrote: float and int8, in two runtimes, side by side.

    python bench/bench_foreign_models.py --shared ../shared/data --speech /usr/share/sounds/alsa

Each model is quantized by what `edgekd quantize` calls, on the inputs named in the table. Every
finished pair of model and runtime is kept in ``runs/foreign_models/``; call it again and it goes
on. The speech is that of Debian's package alsa-utils; without it the two audio models get random
inputs, and the table says so.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import foreign_data as data
import numpy as np

from edgekd.cli._console import RichProgress
from edgekd.cli._quantized import as_plain
from edgekd.core.errors import EdgekdError
from edgekd.core.files import atomic_write
from edgekd.core.target import load_target
from edgekd.profile.environment import environment
from edgekd.profile.measure import MeasureRule
from edgekd.steps.integer_file import QuantizeOptions
from edgekd.steps.quantize_file import quantize_file

ROOT = Path(__file__).resolve().parent.parent
TARGETS = {"ONNX Runtime": "x86-onnxruntime-int8", "OpenVINO": "x86-openvino-int8"}
#: output -> axis along which its largest value is a decision, where (batch, classes) does not say
CLASS_AXIS = {
    "deeplab_v3_1_default_1": {"ResizeBilinear_3": 3},
    "version-RFB-320": {"scores": 2},
    "version-slim-320_simplified": {"scores": 2},
    "past": {"logits": 2},
}
_MEAN, _STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])


def prepared(name: str, path: Path, shared: Path, speech: Path, n: int) -> data.Prepared:
    """Inputs as the model's own authors scale them."""
    if name.startswith("version-"):
        return data.images(shared, "input", (240, 320), lambda x: (x - 127) / 128, n)
    if name.startswith("yunet"):
        return data.images(shared, "input", (320, 320), lambda x: x[..., ::-1], n)
    if name == "yolox_nano":
        return data.images(shared, "images", (416, 416), lambda x: x[..., ::-1], n)
    if name == "deeplab_v3_1_default_1":
        return data.images(shared, "sub_7", (257, 257), lambda x: x / 127.5 - 1, n, chw=False)
    if name == "residual_block":
        return data.images(
            shared, "gpu_0/data_0", (224, 224), lambda x: (x / 255 - _MEAN) / _STD, n
        )
    if name == "model":
        return data.file_bytes(2 * n)
    if name == "past":
        return data.sentences(shared, n)
    if name == "silero_vad_16k_op15":
        return data.speech_windows(path, speech, 4 * n)
    return data.speech_spectra(path, speech, 4 * n)


def one(path: Path, runtime: str, args: argparse.Namespace) -> dict[str, Any]:
    """One model on one runtime: what was found, or why it was refused."""
    name = path.stem.partition("__")[2]
    inputs = prepared(name, path, args.shared, args.speech, args.samples)
    options = QuantizeOptions(
        samples=args.samples,
        ranges=args.ranges,
        weight_bits=8,
        keep_float=(),
        shapes={},
        class_axis=CLASS_AXIS.get(name, {}),
        min_snr_db=None,
        min_agreement=None,
    )
    rule = MeasureRule(percentile=90, min_duration_s=args.seconds, max_duration_s=args.most)
    found: dict[str, Any] = {"model": path.stem, "runtime": runtime, "data": inputs.what}
    with tempfile.TemporaryDirectory() as folder, RichProgress() as progress:
        samples = "random"
        if inputs.arrays is not None:
            samples = str(Path(folder) / "data.npz")
            np.savez(samples, **inputs.arrays)  # type: ignore[arg-type]
        try:
            target = load_target(TARGETS[runtime])
            made = quantize_file(
                path, samples, target, Path(folder) / "int8.onnx", options, rule, progress
            )
        except EdgekdError as e:
            return {**found, "refused": e.failed.replace(str(path), path.name), "why": e.got}
    return {**found, **as_plain(made), "file": path.name, "artifact": "int8.onnx"}


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table, and what stands below it."""
    head = (
        "| model | runtime | float p50, ms | float p90, ms | times faster in int8 (p50) | int8 / "
        "float kernels | worst output, dB | equal decisions | times smaller |"
    )
    lines = [head, "| --- | --- " + "| ---: " * 7 + "|"]
    lines += [row(found) for found in rows]
    lines += ["", "Inputs:", ""]
    by_data: dict[str, list[str]] = {}
    for found in rows:
        names = by_data.setdefault(found["data"], [])
        if found["model"] not in names:
            names.append(found["model"])
    lines += [f"- {what}: {', '.join(f'`{n}`' for n in names)}" for what, names in by_data.items()]
    notes = [f"- `{f['model']}` in {f['runtime']}: {f['why']}" for f in rows if "refused" in f]
    lines += ["", "Refused by the runtime:", "", *notes] if notes else []
    broken = [
        f"- `{f['model']}` in {f['runtime']}: {why}" for f in rows for why in f.get("failures", ())
    ]
    lines += ["", "Parity failed (exit code 5):", "", *broken] if broken else []
    lines += ["", machine(rows)]
    return "\n".join(lines)


def row(found: dict[str, Any]) -> str:
    """One line of the table."""
    start = f"| `{found['model']}` | {found['runtime']} "
    if "refused" in found:
        return f"{start}| refused |  |  |  |  |  |  |"
    first = found["latency_ms"]["float"]
    speed, kernels = found["speedup"]["speedup_p50"], found["kernels"]
    total = found["parity"]["total"]
    snr = agree = "withheld"
    if total is not None:
        values = [o["snr_db"] for o in total if not o["exact"]]
        snr = f"{min(values):.1f}" if values and None not in values else "-"
        shares = [o["agreement"] for o in total if o["agreement"] is not None]
        agree = f"{min(shares):.2%}" if shares else ""
    sizes = found["size_bytes"]
    cells = [
        *(ms(first[p]) for p in ("p50", "p90")),
        "-" if speed is None else f"{speed:.2f}",
        f"{kernels['int8']} / {kernels['float']}",
        snr,
        agree,
        f"{sizes['before'] / sizes['after']:.2f}",
    ]
    return f"{start}| {' | '.join(cells)} |"


def ms(figure: dict[str, Any]) -> str:
    """A certified percentile, or why there is none."""
    certified = figure["certified"]
    return str(figure["reason"]) if certified is None else f"{certified:.2f}"


def machine(rows: list[dict[str, Any]]) -> str:
    """On what the figures were made."""
    facts, versions = environment()["machine"], environment()["versions"]
    runtimes = ", ".join(f"{n} {versions[n]}" for n in ("onnxruntime", "openvino"))
    loads = [f["environment"]["state"]["load_average"][0] for f in rows if "environment" in f]
    return (
        f"{facts['cpu']}, {facts['cores_usable']} cores, {', '.join(facts['cpu_flags'])}; "
        f"{runtimes}; load average {min(loads, default=0):.1f} to {max(loads, default=0):.1f}."
    )


def main(argv: list[str]) -> int:
    """Run what is missing, and write the table's content."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--speech", type=Path, default=Path("/usr/share/sounds/alsa"))
    parser.add_argument("--samples", type=int, default=96, help="images of each model")
    parser.add_argument("--seconds", type=float, default=1.0, help="timed of each file, at least")
    parser.add_argument("--most", type=float, default=30.0, help="seconds of each file, at most")
    parser.add_argument("--ranges", default="mse")
    parser.add_argument("--finished", action="store_true", help="only tell what is there")
    parser.add_argument("--only", default="", help="part of a model's name")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "foreign_models.json")
    args = parser.parse_args(argv)
    rows = []
    for path in sorted(p for p in (args.shared / "onnx").glob("*.onnx") if args.only in p.name):
        for runtime in TARGETS:
            kept = args.out.with_suffix("") / f"{path.stem}.{TARGETS[runtime]}.json"
            if args.finished and not kept.is_file():
                continue
            if not kept.is_file():
                atomic_write(kept, json.dumps(one(path, runtime, args), indent=1))
            rows.append(json.loads(kept.read_text()))
            print(row(rows[-1]), flush=True)
    report = {"rows": rows, "markdown": markdown(rows)}
    atomic_write(args.out, json.dumps(report, indent=1))
    print(report["markdown"])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
