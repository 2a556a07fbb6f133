"""A whole run for a device that is not this machine, and for one that does not exist."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from edgekd.core.config import dump_yaml
from edgekd.core.errors import DeviceError
from edgekd.core.ledger import Ledger
from edgekd.core.target import load_target
from edgekd.profile.store import read_profile
from tests.profile.transports.conftest import (
    Server,
    becomes_clean,
    cut_while_working,
    is_clean,
)

if TYPE_CHECKING:
    from tests.end_to_end.conftest import Finished

Compress = Callable[..., "Finished"]


def write_target(folder: Path, transport: Any) -> str:
    plain = load_target("x86-onnxruntime-int8").model_dump(mode="json", exclude_none=True)
    values = {**plain, "name": "pi", "transport": transport}
    (folder / "pi.yaml").write_text(dump_yaml(values))
    return "./pi.yaml"


@pytest.mark.slow
def test_a_run_is_proven_and_measured_on_the_device(
    sshd: Server, vectors: Path, compress_vectors: Compress
) -> None:
    device = vectors / "device"
    device.mkdir()
    done = compress_vectors(targets=[write_target(vectors, sshd.transport(device))])
    (target,) = done.report.targets
    assert done.report.met
    assert target.ladder[-1].name == "pi"
    assert target.ladder[-1].ok
    assert target.kernels.int8 == 2
    for measured in (target.measured, target.baseline, target.student_float):
        assert measured is not None
        assert measured.source == "measured"
        assert measured.place.endswith(", over ssh")
        assert measured.peak_memory_mib > measured.runtime_memory_mib > 1
        profile = read_profile(done.folder / measured.profile, measured_only=True)
        assert profile.environment["transport"] == "ssh"
        assert profile.conditions.interleaved_with == 2, "all three in one go"
        assert profile.artifact_sha256 == measured.sha256
    assert is_clean(device)
    assert {p.name for p in device.glob("*/models/*")} >= {target.measured.sha256}

    # nothing depends on anything new, so nothing is done again
    again = compress_vectors(targets=["./pi.yaml"])
    events = Ledger(again.folder / "ledger.jsonl").events
    assert [e["event"] for e in events].count("concluded") == 2
    assert all(stage.reused for stage in again.report.stages)


@pytest.mark.slow
def test_a_connection_that_is_cut_is_a_recorded_failure_and_the_next_call_goes_on(
    sshd: Server, vectors: Path, compress_vectors: Compress
) -> None:
    device = vectors / "device"
    device.mkdir()
    target = write_target(vectors, sshd.transport(device, wait_s=10))
    cutter = cut_while_working(sshd, device, times=2)
    # so long that it is cut in the middle
    long = {"percentile": 90, "min_duration_s": 3}
    with pytest.raises(DeviceError, match="broke, and broke again"):
        compress_vectors(targets=[target], profile=long)
    cutter.join()
    assert becomes_clean(device)
    failed = Ledger(vectors / "run" / "ledger.jsonl").events[-1]
    assert failed["event"] == "stage_failed"
    assert "broke, and broke again" in failed["error"]
    assert not (vectors / "run" / "verdict.json").exists()

    done = compress_vectors(targets=[target], profile=long)
    assert done.report.met
    assert [s.reused for s in done.report.stages if s.name.startswith("distilled")] == [True]
    assert is_clean(device)


def test_simulated_figures_never_meet_a_budget_on_time_or_memory(
    vectors: Path, compress_vectors: Compress
) -> None:
    transport = {"name": "null", "latency_ms": 0.001}
    target = write_target(vectors, transport)
    budgets = ["p90<=1s", "p50<=1s", "peak_memory<=8GiB", "size<=1MiB"]
    done = compress_vectors(targets=[target], budgets=budgets)
    assert not done.report.met
    verdict = json.loads((done.folder / "verdict.json").read_text())
    assert verdict["met"] is False
    (found,) = verdict["targets"]
    assert {b["name"]: b["met"] for b in found["budgets"]} == {
        "p90": False,
        "p50": False,
        "peak_memory": False,
        "size": True,  # a file's size is counted, not measured
    }
    assert {f["certified"] for f in found["latency_ms"].values()} == {None}
    assert "no clock has measured these samples" in found["budgets"][0]["reason"]
    (result,) = done.report.targets
    assert result.speedup_p90 is None
    assert result.measured.source == "simulated"
    assert "simulated, no clock ran on a device" in (done.folder / "report.html").read_text()
