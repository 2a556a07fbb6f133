"""trtexec through the agent, with a stand-in that only keeps the protocol: no engine is built.

What is shown is what crosses the connection, what is kept on the device and which answers are
believed. Nothing here has run on a GPU, and no figure of the stand-in means anything.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekd.backends._kernels import count_kernels
from edgekd.cli.main import run
from edgekd.core.errors import DeviceError, EdgekdError, UnsupportedError
from edgekd.core.progress import Silent
from edgekd.core.target import load_target
from edgekd.profile.measure import MeasureRule
from edgekd.profile.transports._contract import Load
from edgekd.profile.transports._remote import RemoteDevice
from edgekd.profile.transports._stream import EndedError
from edgekd.testing.onnx_models import INPUT, convolution_net
from tests.profile.transports.conftest import Pipe, Server, becomes_clean, is_clean, load_on
from tests.profile.transports.test_agent import root, workers

BY_HAND = Path(__file__).parents[2] / "data" / "trtexec_by_hand"
JETSON = load_target("jetson-orin-tensorrt-int8")
RULE = MeasureRule(percentile=90, min_duration_s=0, block=32)
#: keeps what it was called with; answers with reports written by hand, and with as many times of
#: a microsecond as it was asked for
STAND_IN = """#!{python}
import json, pathlib, shutil, sys
flags = dict(a.partition("=")[::2] for a in sys.argv[1:])
print("&&&& RUNNING TensorRT.trtexec [TensorRT v{banner}] [b26] # trtexec")
if "--help" in flags:
    sys.exit(0)
with open({log!r}, "a") as f:
    here = sorted((p.name, p.stat().st_size) for p in pathlib.Path().iterdir())
    f.write(json.dumps([sys.argv[1:], here]) + "\\n")
{more}
if "--saveEngine" in flags:
    pathlib.Path(flags["--saveEngine"]).write_bytes(pathlib.Path(flags["--onnx"]).read_bytes())
else:
    pathlib.Path(flags["--loadEngine"]).read_bytes()
if "--exportTimes" in flags:
    times = [dict(latencyMs=0.001)] * int(flags["--iterations"])
    pathlib.Path(flags["--exportTimes"]).write_text(json.dumps(times))
for flag, report in (("--exportProfile", "profile"), ("--exportLayerInfo", "layers"),
                     ("--exportOutput", "outputs")):
    if flag in flags:
        shutil.copy({by_hand!r} + "/" + report + ".json", flags[flag])
"""
Make = Callable[..., Path]


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Put a stand-in on the device's path; returns the file that keeps its calls."""
    log = tmp_path / "calls.jsonl"

    def make(banner: str = "100300", more: str = "") -> Path:
        folder = tmp_path / "programs"
        folder.mkdir(exist_ok=True)
        text = STAND_IN.format(
            python=sys.executable, banner=banner, log=str(log), more=more, by_hand=str(BY_HAND)
        )
        (folder / "trtexec").write_text(text)
        (folder / "trtexec").chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        return log

    return make


@pytest.fixture
def load(tmp_path: Path) -> Load:
    path = tmp_path / "net.onnx"
    path.write_bytes(convolution_net(quantized=True, codes="int8", integer_bias=False))
    return load_on(path, JETSON, count=1)


def agent(folder: Path, **changes: Any) -> RemoteDevice:
    return RemoteDevice(Pipe(str(folder), **changes), "pipe")


def calls(log: Path) -> list[Any]:
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def test_one_engine_is_built_there_for_all_questions(
    stand_in: Make, device: Path, load: Load
) -> None:
    log = stand_in()
    with agent(device) as there:
        assert there.runtime(JETSON, timing_only=True) == "10.3.0"
        (profile,) = there.measure([load], RULE, inputs="-", progress=Silent())
        layers = there.layers(load)
        outputs = there.run(load)
        assert there.memory(load) is None
    assert is_clean(device), "the engine is gone with the connection"
    assert set(profile.samples_ns) == {1000}
    assert len(profile.samples_ns) >= 64
    assert profile.conditions.clock == "trtexec: CUDA events around each inference"
    assert profile.conditions.warm_up == "by trtexec, 200 ms before each of its calls"
    assert profile.environment["versions"]["trtexec"] == "10.3.0"
    assert count_kernels(layers).int8 == 2
    assert [list(one) for one in outputs] == [["logits"]]
    np.testing.assert_allclose(outputs[0]["logits"], [[0.25, -1.5, 3, 1e-05, 0]])
    (build, at_build), *rest = calls(log)
    assert "--stronglyTyped" in build
    assert [name for name, _ in at_build] == ["model.onnx", "program.log"]
    assert all("--loadEngine=model.engine" in words for words, _ in rest)
    assert all(f"--loadInputs={INPUT}:input-0.bin" in words for words, _ in rest)
    fed = load.feeds[0][INPUT].nbytes
    assert all(["input-0.bin", fed] in here for _, here in rest)
    assert sum("--exportTimes=times.json" in words for words, _ in rest) >= 3, "in turns"


@pytest.mark.slow  # a process there for every call
def test_the_command_line_profiles_through_it(
    stand_in: Make, sshd: Server, device: Path, load: Load, write_target: Any, capsys: Any
) -> None:
    stand_in()
    programs = load.path.parent / "programs"
    python = programs / "python"
    python.write_text(f'#!/bin/sh\nPATH={programs}:$PATH exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    target = write_target(sshd.transport(device, python=str(python)), based_on=JETSON.name)
    words = [str(load.path), "--target", target, "--percentile", "90", "--min-duration", "0"]
    assert run(["profile", *words, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["latency_ms"]["p90"]["certified"] == 0.001
    assert found["peak_memory_mib"] is None
    assert found["kernels"]["int8"] == 2
    assert found["environment"]["transport"] == "ssh"
    assert run(["profile", *words, "--sustained", "1"]) == 4
    assert "cannot be run for minutes" in capsys.readouterr().err
    assert run(["device", "check", target]) == 0
    assert "tensorrt 10.3.0 is in the target's range" in capsys.readouterr().out
    assert is_clean(device)


def test_a_device_without_the_program_is_refused_at_once(
    sshd: Server, device: Path, load: Load, write_target: Any, capsys: Any
) -> None:
    target = write_target(sshd.transport(device), based_on=JETSON.name)
    start_s = time.monotonic()
    assert run(["profile", str(load.path), "--target", target]) == 6
    assert time.monotonic() - start_s < 20
    said = capsys.readouterr().err
    assert said.startswith(f"{sshd.user}@127.0.0.1 lacks the program trtexec.")
    assert is_clean(device)


def test_every_sample_of_a_test_set_is_too_much_for_it(stand_in: Make, device: Path) -> None:
    stand_in()
    with agent(device) as there, pytest.raises(UnsupportedError) as caught:
        there.runtime(JETSON)
    assert "for `edgekd profile` and `edgekd explain` alone" in caught.value.failed
    assert not list(device.iterdir()), "said without a connection"


def test_a_version_out_of_range_is_refused(stand_in: Make, device: Path) -> None:
    stand_in("110100")
    with agent(device) as there, pytest.raises(UnsupportedError, match="another version of tens"):
        there.runtime(JETSON, timing_only=True)


def test_what_would_be_misread_is_never_sent(stand_in: Make, device: Path, tmp_path: Path) -> None:
    log = stand_in()
    path = tmp_path / "u8.onnx"
    path.write_bytes(convolution_net(quantized=True))
    with agent(device) as there, pytest.raises(UnsupportedError, match="refuse or misread"):
        there.layers(load_on(path, JETSON))
    assert calls(log) == []
    assert not list(root(device).glob("models/*"))


def test_two_clocks_are_not_put_side_by_side(stand_in: Make, device: Path, load: Load) -> None:
    stand_in()
    other = load_on(load.path, load_target("x86-onnxruntime-int8"))
    with agent(device) as there, pytest.raises(UnsupportedError, match="different clocks"):
        there.measure([load, other], RULE, inputs="-", progress=Silent())


@pytest.mark.parametrize(
    ("more", "error", "text"),
    [
        ("print('[E] Error[9]: no \\x1b[2J kernel'); sys.exit(1)", UnsupportedError, "no "),
        ("import os; os.kill(os.getpid(), 9)", DeviceError, "signal 9"),
        ("sys.exit(3)", DeviceError, "exit code 3, no reason given"),
        (
            "if '--exportTimes' in flags: print('[E] out of memory'); sys.exit(1)",
            UnsupportedError,
            "out of memory",
        ),
    ],
    ids=["refused", "killed", "silent", "later"],
)
def test_a_call_that_fails_is_one_error(
    more: str, error: type[EdgekdError], text: str, stand_in: Make, device: Path, load: Load
) -> None:
    stand_in(more=more)
    with agent(device) as there, pytest.raises(error) as caught:
        there.measure([load], RULE, inputs="-", progress=Silent())
    assert text in caught.value.got
    assert caught.value.got.isprintable()
    assert "trtexec on the pipe" in caught.value.failed
    if "later" not in text and error is UnsupportedError:
        assert ("--exportTimes" in caught.value.todo) == ("exportTimes" in more)
    assert is_clean(device)


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ("json.dumps = lambda x: 'nonsense'", "the form that trtexec documents"),
        ("flags['--iterations'] = '3'", "20 inferences"),
        ("dict = lambda latencyMs: {'latencyMs': 3e6}", "does not believe"),
    ],
    ids=["no JSON", "fewer", "longer than the call"],
)
def test_reports_that_cannot_be_are_not_believed(
    more: str, text: str, stand_in: Make, device: Path, load: Load
) -> None:
    stand_in(more=more)
    with agent(device) as there, pytest.raises(DeviceError) as caught:
        there.measure([load], RULE, inputs="-", progress=Silent())
    assert text in caught.value.message


def test_a_program_ends_with_its_agent(stand_in: Make, device: Path, load: Load) -> None:
    log = stand_in(more="import time; time.sleep(30)")

    def kill() -> None:
        while not calls(log):
            time.sleep(0.02)
        mine = workers(device)
        parents = {int(Path(f"/proc/{p}/stat").read_text().split()[3]) for p in mine}
        for pid in parents - set(mine):
            os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    with agent(device, wait_s=5.0) as there:
        connection: Any = there._connection
        connection._started = _only_once(connection._started)
        with pytest.raises(DeviceError, match="broke"):
            there.layers(load)
    killer.join()
    end_s = time.monotonic() + 5
    while running() and time.monotonic() < end_s:
        time.sleep(0.05)
    assert not running()
    with agent(device) as there:
        there.describe()
    assert becomes_clean(device)


def _only_once(start: Callable[[], Any]) -> Callable[[], Any]:
    """A connection that cannot be made once more."""
    streams = iter([start])

    def started() -> Any:
        for one in streams:
            return one()
        raise EndedError(255, "gone")

    return started


def running() -> list[int]:
    """Processes of a stand-in."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().split(b"\0")
        except OSError:
            continue
        if any(w.endswith(b"/programs/trtexec") for w in words):
            found.append(int(entry.parent.name))
    return found
