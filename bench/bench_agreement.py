"""Does `edgekd profile` read what others read? Against a bare ONNX Runtime loop and benchmark_app.

    python bench/bench_agreement.py --data ../shared/data            # some minutes on one core
    python bench/bench_agreement.py --data ../shared/data --smoke    # seconds: does it still run?

Ten rounds; in each the contenders take turns on the same file with one thread and float32, and
each round starts with another one. What is compared is the ratio of medians within a round, so
that a neighbour who slows the machine for a while slows both. Every sample of ours and of the bare
loop is kept in runs/agreement.json, and every median that benchmark_app printed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from edgekd.backends._contract import BACKENDS
from edgekd.core.progress import Silent
from edgekd.core.target import load_target
from edgekd.profile.agent.timing import Series, timed
from edgekd.profile.environment import environment
from edgekd.profile.inputs import make_feeds
from edgekd.profile.measure import MeasureRule, Subject, measure

ROOT = Path(__file__).resolve().parent.parent
MODELS = ("ultraface__version-RFB-320", "yunet__yunet_n_320_320", "yolox-nano__yolox_nano")
ORT, OPENVINO = "x86-onnxruntime-fp32", "x86-openvino-fp32"
WANTED_DIFFERENCE, WANTED_OVERHEAD_US = 0.03, 2.0


def opened(path: Path, target_name: str) -> Subject:
    target = load_target(target_name)
    session = BACKENDS.get(target.backend)().open(path, target, threads=1)
    feeds = make_feeds(session.inputs, {}, seed=0, count=1)
    return Subject(path.stem, session, feeds, "-", target)


def ours(subject: Subject, seconds: float) -> list[int]:
    """Samples in ns, as `edgekd profile` takes them."""
    rule = MeasureRule(percentile=50, min_duration_s=seconds, max_duration_s=60)
    (profile,) = measure([subject], rule, inputs="random, seed 0", progress=Silent())
    return list(profile.samples_ns)


def bare_loop(path: Path, feeds: Mapping[str, Any]) -> Callable[[float], list[int]]:
    """What one writes oneself: a session, twenty runs to warm up, a clock around each run."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def loop(seconds: float) -> list[int]:
        for _ in range(20):
            session.run(names, feeds)
        samples: list[int] = []
        end = time.perf_counter_ns() + seconds * 1e9
        while (now := time.perf_counter_ns()) < end:
            session.run(names, feeds)
            samples.append(time.perf_counter_ns() - now)
        return samples

    return loop


def benchmark_app(path: Path, seconds: float) -> float:
    """The median that OpenVINO's own tool prints, ms: latency hint, one synchronous request."""
    tool = Path(sys.executable).parent / "benchmark_app"
    with tempfile.TemporaryDirectory() as folder:
        words = [str(tool), "-m", str(path), "-d", "CPU", "-hint", "none", "-api", "sync"]
        words += ["-nireq", "1", "-nstreams", "1", "-nthreads", "1", "-infer_precision", "f32"]
        words += ["-t", str(max(1, round(seconds))), "-json_stats", "-report_type", "no_counters"]
        done = subprocess.run(
            [*words, "-report_folder", folder], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"benchmark_app failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        report = json.loads((Path(folder) / "benchmark_report.json").read_text())
    return float(report["execution_results"]["latency (ms)"])


def in_turns(rounds: int, contenders: dict[str, Callable[[], Any]]) -> dict[str, list[Any]]:
    names = list(contenders)
    found: dict[str, list[Any]] = {name: [] for name in names}
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            found[name].append(contenders[name]())
    return found


def overhead_us(calls: int) -> dict[str, float]:
    """What the profiler adds to an inference: inside its own samples, and around them."""
    series = Series([lambda: None])
    begun = time.perf_counter_ns()
    samples = timed(series, calls)
    around_ns = (time.perf_counter_ns() - begun) / calls
    return {"inside": statistics.median(samples) / 1e3, "altogether": around_ns / 1e3}


def agreement(rounds: list[tuple[float, float]]) -> dict[str, Any]:
    """Of (ours, theirs) medians in ms, one pair a round."""
    ratios = [mine / theirs for mine, theirs in rounds]
    return {
        "ours_ms": statistics.median(mine for mine, _ in rounds),
        "theirs_ms": statistics.median(theirs for _, theirs in rounds),
        "ratio": statistics.median(ratios),
        "ratios": ratios,
    }


def run(data: Path, rounds: int, seconds: float, models: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {"rows": [], "samples": {}}
    for name in models:
        path = data / "onnx" / f"{name}.onnx"
        subject, other = opened(path, ORT), opened(path, OPENVINO)
        loop = bare_loop(path, subject.feeds[0])
        turns = in_turns(
            rounds,
            {
                "edgekd on ONNX Runtime": lambda s=subject: ours(s, seconds),
                "bare loop": lambda run=loop: run(seconds),
                "edgekd on OpenVINO": lambda s=other: ours(s, seconds),
                "benchmark_app": lambda path=path: benchmark_app(path, seconds),
            },
        )
        ort, bare, openvino = (
            [float(np.median(samples)) / 1e6 for samples in turns[contender]]
            for contender in ("edgekd on ONNX Runtime", "bare loop", "edgekd on OpenVINO")
        )
        pairs = {
            "bare ONNX Runtime loop": list(zip(ort, bare, strict=True)),
            "benchmark_app": list(zip(openvino, turns["benchmark_app"], strict=True)),
        }
        for against, medians in pairs.items():
            found["rows"].append({"model": name, "against": against, **agreement(medians)})
            print(name, against, f"{found['rows'][-1]['ratio']:.3f}", flush=True)
        found["samples"][name] = turns
    return found


def summary(found: dict[str, Any], rounds: int, smoke: bool) -> dict[str, Any]:
    overhead = overhead_us(1000 if smoke else 200_000)
    facts = environment()
    lines = [
        "| model | against | edgekd, ms | theirs, ms | ratio of medians | rounds from - to |",
        "|---|---|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {r['model']} | {r['against']} | {r['ours_ms']:.3f} | {r['theirs_ms']:.3f} | "
        f"{r['ratio']:.3f} | {min(r['ratios']):.3f} - {max(r['ratios']):.3f} |"
        for r in found["rows"]
    ]
    versions = facts["versions"]
    lines += [
        "",
        f"Median of {rounds} rounds in turns, one thread, float32, random inputs. The profiler's "
        f"own cost per inference: {overhead['inside']:.2f} µs inside a sample, "
        f"{overhead['altogether']:.2f} µs altogether. {facts['machine']['cpu']}, onnxruntime "
        f"{versions['onnxruntime']}, openvino {versions['openvino']}, "
        f"load {facts['state']['load_average'][0]:.1f}.",
    ]
    return {
        "schema": 1,
        **found,
        "overhead_us": overhead,
        "environment": facts,
        "markdown": "\n".join(lines),
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder that holds onnx/")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=2.0, help="timed in each turn")
    parser.add_argument("--smoke", action="store_true", help="one short round, no verdict")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "agreement.json")
    args = parser.parse_args(arguments)
    models = MODELS
    if args.smoke:
        args.rounds, args.seconds, models = 1, 0.2, MODELS[:1]
    report = summary(run(args.data, args.rounds, args.seconds, models), args.rounds, args.smoke)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(report) + "\n")
    print(report["markdown"])
    if args.smoke:
        return 0
    close = all(abs(row["ratio"] - 1) <= WANTED_DIFFERENCE for row in report["rows"])
    return 0 if close and report["overhead_us"]["altogether"] < WANTED_OVERHEAD_US else 1


if __name__ == "__main__":
    raise SystemExit(main())
