"""Minutes on a device elsewhere, in seconds: whole, cut off, and lied about."""

from __future__ import annotations

import json
import os
import signal
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edgekd.cli.main import run
from edgekd.core.errors import DeviceError, UnsupportedError
from edgekd.core.progress import Silent
from edgekd.core.target import load_target
from edgekd.profile.agent import endurance
from edgekd.profile.agent.endurance import WINDOWS
from edgekd.profile.store import compare, read_profile
from edgekd.profile.sustained import BrokenOffError
from edgekd.profile.transports import _remote
from edgekd.profile.transports._remote import RemoteDevice
from tests.profile.transports.conftest import (
    Liar,
    Pipe,
    Server,
    becomes_clean,
    framed,
    is_clean,
    load_on,
)
from tests.profile.transports.test_agent import workers
from tests.profile.transports.test_hostile import ENVIRONMENT

INT8 = load_target("x86-onnxruntime-int8")
QUICK = ["--percentile", "90", "--min-duration", "0"]
LONG = 0.3
Write = Callable[..., str]


class Acting(Silent):
    """Does something when a long run has come so many windows far."""

    def __init__(self, window: int, act: Callable[[], None]) -> None:
        self.left, self.act = window, act

    @contextmanager
    def bar(self, title: str, total: int, done: int = 0) -> Iterator[Any]:
        yield self

    def advance(self, steps: int = 1, note: str = "") -> None:
        self.left -= note.startswith("median")
        if not self.left and note:
            self.act()


def disconnect(sshd: Server) -> Callable[[], None]:
    return lambda: [os.kill(pid, signal.SIGKILL) for pid in sshd.connections()] and None


def sustained(device: Any, path: Path, progress: Any = None, duration_s: float = LONG) -> Any:
    load = load_on(path, INT8)
    return device.sustain(load, duration_s, inputs="-", progress=progress or Silent())


def test_burst_and_long_run_over_ssh(
    sshd: Server, device: Path, model: Path, write_target: Write, tmp_path: Path, capsys: Any
) -> None:
    target, out = write_target(sshd.transport(device)), tmp_path / "raw.json"
    words = [str(model), "--target", target, *QUICK, "--sustained", "0.005", "--out", str(out)]
    assert run(["profile", *words, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["failure"] is None
    long_run = found["sustained"]
    assert long_run["duration"] == "sustained: back to back for 0.3 s"
    assert len(long_run["windows"]) == WINDOWS
    assert long_run["slowdown"] > 0
    assert long_run["throttled_at_s"] is None or 0 <= long_run["throttled_at_s"] < 0.3
    burst = read_profile(out, measured_only=True)
    whole = read_profile(tmp_path / "raw.sustained.json", measured_only=True)
    assert len(whole.samples_ns) == long_run["runs"] == sum(w["runs"] for w in long_run["windows"])
    assert sum(whole.samples_ns) / 1e9 > 0.1, "nearly all of the time is timed"
    assert whole.environment["transport"] == "ssh"
    with pytest.raises(UnsupportedError, match="under different conditions"):
        compare(burst, whole)
    assert is_clean(device)


def test_a_connection_that_is_cut_in_a_long_run_is_told_with_what_came_so_far(
    sshd: Server,
    device: Path,
    model: Path,
    write_target: Write,
    tmp_path: Path,
    capsys: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    target, out = write_target(sshd.transport(device)), tmp_path / "raw.json"
    progress = Acting(5, disconnect(sshd))
    monkeypatch.setattr("edgekd.cli._console.RichProgress", lambda: _entered(progress))
    words = [str(model), "--target", target, *QUICK, "--sustained", "0.05", "--out", str(out)]
    assert run(["profile", *words, "--json"]) == 6
    captured = capsys.readouterr()
    (found,) = json.loads(captured.out)
    place = f"{sshd.user}@127.0.0.1"
    assert captured.err.startswith(f"The connection to {place} broke.\n")
    assert found["failure"].startswith(f"The connection to {place} broke.")
    assert found["latency_ms"]["p90"]["certified"] > 0
    came = len(found["sustained"]["windows"])
    assert 5 <= came < WINDOWS
    ending = f"for 3 s, broken off after {came} of 60 windows"
    assert found["sustained"]["duration"].endswith(ending)
    kept = read_profile(tmp_path / "raw.sustained.json", measured_only=True)
    assert len(kept.samples_ns) >= sum(w["runs"] for w in found["sustained"]["windows"])
    assert kept.conditions.duration.endswith(ending)
    assert len(read_profile(out, measured_only=True).samples_ns) >= 64
    assert becomes_clean(device)


@contextmanager
def _entered(progress: Any) -> Iterator[Any]:
    yield progress


def test_a_connection_that_is_cut_before_a_long_run_keeps_the_burst(
    sshd: Server, device: Path, model: Path, write_target: Write, capsys: Any, monkeypatch: Any
) -> None:
    def gone(self: Any, load: Any, duration_s: float, **more: Any) -> Any:
        self._connection.close()
        sshd.keys.joinpath("authorized_keys").rename(sshd.keys / "away")
        try:
            return there(self, load, duration_s, **more)
        finally:
            sshd.keys.joinpath("away").rename(sshd.keys / "authorized_keys")

    there = RemoteDevice.sustain
    monkeypatch.setattr(RemoteDevice, "sustain", gone)
    target = write_target(sshd.transport(device))
    assert run(["profile", str(model), "--target", target, *QUICK, "--sustained", "0.01"]) == 6
    captured = capsys.readouterr()
    assert "p90" in captured.out
    assert "the long run ended early: " in captured.out
    assert "does not let you in with this key" in captured.err


def test_a_worker_that_dies_in_a_long_run_leaves_what_it_has_told(
    device: Path, model: Path
) -> None:
    def kill() -> None:
        for pid in workers(device):
            os.kill(pid, signal.SIGKILL)

    with RemoteDevice(Pipe(str(device)), "pipe") as there:
        with pytest.raises(BrokenOffError, match="process that ran the model on the p") as caught:
            sustained(there, model, Acting(9, kill), duration_s=3)
        assert caught.value.exit_code == 6
        assert caught.value.so_far is not None
        assert 9 <= len(caught.value.so_far.windows) < WINDOWS
        assert caught.value.so_far.slowdown is not None
        assert there.describe().free_bytes > 0, "the agent itself lives on"
    assert is_clean(device)


def test_a_model_that_is_refused_there_is_no_device_that_failed(device: Path, model: Path) -> None:
    wrong = INT8.model_copy(update={"processor": "Nonsense"})
    with RemoteDevice(Pipe(str(device)), "pipe") as there, pytest.raises(UnsupportedError):
        there.sustain(load_on(model, wrong), LONG, inputs="-", progress=Silent())
    assert is_clean(device)


def test_a_window_of_many_runs_comes_in_pieces_of_bounded_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(endurance, "PIECE", 100)
    found = list(endurance.pieces([lambda: None], 0.3, []))
    assert max(len(p.samples_ns) for p in found) == 100
    assert [p.window for p in found] == sorted(p.window for p in found)
    assert [p.window for p in found if p.reading is not None] == list(range(WINDOWS))
    assert len(found) > 2 * WINDOWS


# ---------------------------------------------------------------- lies
def part(body: bytes = b"", heads: Any = None, **head: Any) -> bytes:
    answer = {**head, "arrays": heads or [["samples", "int64", [len(body) // 8]]]}
    return framed(json.dumps(answer).encode(), body, kind="part")


BEGUN = framed(
    json.dumps({"environment": ENVIRONMENT, "counters": ["meter"], "arrays": []}).encode(),
    kind="part",
)
END = framed(b'{"arrays": []}')
READING = {"temperature_c": None, "frequency_khz": 600_000, "joules": [0.5]}


def window(index: int, samples: list[int], reading: Any = READING, **more: Any) -> bytes:
    return part(struct.pack(f"<{len(samples)}q", *samples), window=index, reading=reading, **more)


WHOLE = BEGUN + b"".join(window(i, [1000] * 3) for i in range(WINDOWS))
LIES: dict[str, tuple[bytes, str]] = {
    "no beginning": (window(0, [1000]), "a wrong "),
    "windows that are missing": (BEGUN + window(0, [1000]) + END, "1 windows of 60"),
    "no windows": (BEGUN + END, "0 windows of 60"),
    "nothing": (END, "0 windows of 60"),
    "a later window first": (BEGUN + window(1, [1000]), "a piece of another window"),
    "a window too many": (WHOLE + window(60, [1000]), "a piece of another window"),
    "a window without runs": (BEGUN + window(0, []), "a piece without samples"),
    "a piece of nothing": (
        BEGUN + window(0, [1000], None) + window(0, [], None), "a piece without samples"
    ),
    "samples of a century": (BEGUN + window(0, [10**17]), "more samples than there was time for"),
    "samples of nothing": (BEGUN + window(0, [0]), "no clock can have given"),
    "samples as floats": (
        BEGUN + part(bytes(8), [["samples", "float64", [1]]], window=0, reading=None),
        "no list of whole ns",
    ),
    "joules of other counters": (
        BEGUN + window(0, [1000], {**READING, "joules": []}), "joules of other counters"
    ),
    "joules without end": (
        BEGUN + window(0, [1000], {**READING, "joules": [1e300]}), "a wrong reading.joules"
    ),
    "a piece of a gigabyte": (BEGUN + framed(b"{}", bytes=2**30, kind="part"), "more than the"),
    "a part of another question": (b'edgekd-agent {"kind": "missing"}\n', "another message than"),
    "arrays of others": (
        BEGUN + part(bytes(8), [["evil", "int64", [1]]], window=0, reading=None), "another window"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LIES)
def test_a_lie_about_a_long_run_is_not_believed_and_nothing_is_kept(
    name: str, liar: Liar, model: Path
) -> None:
    answer, text = LIES[name]
    with liar(answer) as device, pytest.raises(DeviceError) as caught:
        sustained(device, model, duration_s=0)
    assert "gives an answer that edgekd does not believe" in caught.value.failed
    assert text in caught.value.got
    assert not isinstance(caught.value, BrokenOffError)


def test_an_honest_long_run_is_taken(liar: Liar, model: Path) -> None:
    with liar(WHOLE + END) as device:
        found = sustained(device, model, duration_s=0)
    assert found.profile.samples_ns == (1000,) * 3 * WINDOWS
    assert found.windows[0].frequency_khz == 600_000
    (energy,) = found.energy
    assert (energy.counter, energy.joules) == ("meter", 0.5)


def test_a_device_that_falls_silent_in_a_long_run_leaves_what_it_has_told(
    liar: Liar, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_remote, "WARM_UP_MAX_S", 0.0)
    told = BEGUN + window(0, [1000, 1000]) + window(1, [1000], None)
    with liar(told, timeout_s=1.0) as device, pytest.raises(BrokenOffError) as caught:
        sustained(device, model)
    assert "does not answer any more" in caught.value.failed
    so_far = caught.value.so_far
    assert so_far is not None
    assert so_far.profile.samples_ns == (1000,) * 3
    assert len(so_far.windows) == 1
    assert so_far.slowdown is None, "one window tells nothing"
    assert so_far.energy[0].per_inference_mj == pytest.approx(250)


def test_a_long_run_that_took_no_time_is_not_believed(liar: Liar, model: Path) -> None:
    with liar(WHOLE + END) as device, pytest.raises(DeviceError) as caught:
        sustained(device, model, duration_s=600)
    assert "a run shorter than was asked for" in caught.value.got


def test_a_part_of_work_that_has_none_is_nonsense(liar: Liar, model: Path) -> None:
    with liar(BEGUN) as device, pytest.raises(DeviceError) as caught:
        device.run(load_on(model, INT8))
    assert "another message than 'answer'" in caught.value.got
