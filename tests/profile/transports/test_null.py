"""Simulated samples: marked so, and never taken for measured ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgekd.cli.main import run
from edgekd.core.errors import DataError, UnsupportedError
from edgekd.core.progress import Silent
from edgekd.core.target import load_target
from edgekd.profile.measure import MeasureRule
from edgekd.profile.percentiles import percentiles
from edgekd.profile.store import compare, read_profile, write_profile
from edgekd.profile.transports._contract import TRANSPORTS
from tests.profile.transports.conftest import load_on

TARGET = load_target("x86-onnxruntime-int8")
RULE = MeasureRule(percentile=99, min_duration_s=0)


def simulated(model: Path, **fields: Any) -> Any:
    with TRANSPORTS.build({"name": "null", **fields}).connect() as device:
        (profile,) = device.measure([load_on(model, TARGET)], RULE, inputs="-", progress=Silent())
        assert device.memory(load_on(model, TARGET)) is None
    return profile


def test_samples_are_marked_and_the_same_for_the_same_seed(model: Path) -> None:
    profile = simulated(model, latency_ms=2.0)
    assert profile.source == "simulated"
    assert profile.environment["transport"] == "null"
    assert len(profile.samples_ns) == 662
    assert percentiles(profile).p50.empirical == pytest.approx(2.0, rel=0.02)
    assert simulated(model, latency_ms=2.0).samples_ns == profile.samples_ns
    assert simulated(model, latency_ms=2.0, seed=1).samples_ns != profile.samples_ns


def test_nothing_is_certified_of_them_and_nothing_compares(model: Path, tmp_path: Path) -> None:
    profile = simulated(model)
    found = percentiles(profile)
    for name in ("p50", "p90", "p95", "p99"):
        figure = getattr(found, name)
        assert figure.certified is None
        assert figure.reason == "no clock has measured these samples"
    with pytest.raises(UnsupportedError, match="cannot be compared"):
        compare(profile, profile.model_copy(update={"source": "measured"}))
    write_profile(profile, tmp_path / "x.json")
    with pytest.raises(DataError, match="was not measured"):
        read_profile(tmp_path / "x.json", measured_only=True)


def test_outputs_are_real_and_the_command_line_says_what_the_times_are(
    model: Path, write_target: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = ["--percentile", "50", "--min-duration", "0"]
    target = write_target("null")
    assert run(["profile", str(model), "--target", target, *quick, "--json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)
    assert one["source"] == "simulated"
    assert one["latency_ms"]["p50"]["certified"] is None
    assert one["peak_memory_mib"] is None
    assert one["kernels"]["int8"] == 2, "of this machine's runtime"
    assert run(["profile", str(model), "--target", target, *quick]) == 0
    out = capsys.readouterr().out
    assert "no clock has measured these samples" in out
    assert "peak memory not measured" in out
