"""The agent in a process of this machine: what it runs, what it keeps, and what it leaves."""

from __future__ import annotations

import ast
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgekd.core.errors import DeviceError, EdgekdError, UnsupportedError
from edgekd.core.progress import Silent
from edgekd.core.target import load_target
from edgekd.profile.agent import serve
from edgekd.profile.measure import MeasureRule
from edgekd.profile.transports._connection import File
from edgekd.profile.transports._remote import RemoteDevice
from edgekd.profile.transports.local import LocalDevice
from edgekd.testing.onnx_models import convolution_net, with_external_data
from tests.profile.transports.conftest import Pipe, becomes_clean, is_clean, load_on

ORT, OV = load_target("x86-onnxruntime-int8"), load_target("x86-openvino-int8")
RULE = MeasureRule(percentile=90, min_duration_s=0, max_duration_s=20)
SOURCES = sorted(Path(serve.__file__).parent.glob("*.py"))


def agent(folder: Path, **changes: Any) -> RemoteDevice:
    return RemoteDevice(Pipe(str(folder), **changes), "pipe")


def root(folder: Path) -> Path:
    return folder / f"edgekd-{os.getuid()}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.name)
def test_it_is_written_for_old_pythons_and_imports_nothing_of_edgekd(path: Path) -> None:
    module = ast.parse(path.read_text(), feature_version=(3, 8))
    allowed = set(sys.stdlib_module_names) | {"numpy", "onnxruntime", "openvino", "pynvml"}
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            assert {a.name.partition(".")[0] for a in node.names} <= allowed
        if isinstance(node, ast.ImportFrom) and not node.level:
            assert (node.module or "").partition(".")[0] in allowed
    if path.name == "serve.py":  # it is run from its text alone
        froms = [n for n in ast.walk(module) if isinstance(n, ast.ImportFrom)]
        assert not any(n.level for n in froms)


def test_two_runtimes_are_timed_in_turns_in_one_question(device: Path, model: Path) -> None:
    loads = [load_on(model, ORT), load_on(model, OV)]
    with agent(device) as there:
        first, second = there.measure(loads, RULE, inputs="x", progress=Silent())
    assert (first.target, second.target) == (ORT.name, OV.name)
    assert first.conditions == second.conditions
    assert first.conditions.interleaved_with == 1
    assert min(len(first.samples_ns), len(second.samples_ns)) >= 64
    assert first.environment["transport"] == "pipe"
    assert is_clean(device)


@pytest.mark.parametrize("target", [ORT, OV], ids=lambda t: t.name)
def test_models_with_their_weights_in_another_file(
    target: Any, device: Path, tmp_path: Path
) -> None:
    net = convolution_net(quantized=True, batch="batch")
    path = with_external_data(net, tmp_path / "m.onnx", location="w.bin")
    load = load_on(path, target)
    with agent(device) as there, LocalDevice() as here:
        for got, expected in zip(there.run(load), here.run(load), strict=True):
            for name, value in expected.items():
                np.testing.assert_array_equal(got[name], value)
        assert [x.op for x in there.layers(load)] == [x.op for x in here.layers(load)]
    assert is_clean(device)


def test_a_cached_model_that_was_changed_there_is_sent_again(device: Path, model: Path) -> None:
    load = load_on(model, ORT)
    with agent(device) as there:
        expected = there.run(load)
    cached = root(device) / "models" / load.sha256
    cached.write_bytes(cached.read_bytes()[:-1] + b"!")
    with agent(device) as there:
        for got, wanted in zip(there.run(load), expected, strict=True):
            np.testing.assert_array_equal(got["logits"], wanted["logits"])
    assert is_clean(device)


def test_a_model_that_arrives_damaged_is_not_run(device: Path, model: Path) -> None:
    load = load_on(model, ORT)
    model.write_bytes(model.read_bytes() + b"\x00\x00")  # after its hash was taken
    with agent(device) as there, pytest.raises(DeviceError, match="the pipe damaged"):
        there._connection.work(
            {"task": "run", "models": [], "arrays": []},
            b"",
            {load.sha256: File("m", load.sha256, model)},
            limit_s=5,
            most_bytes=0,
            read=lambda a, b: a,
        )
    assert is_clean(device)


def test_nothing_else_is_measured_meanwhile(device: Path) -> None:
    with agent(device) as first:
        first.describe()
        with agent(device) as second, pytest.raises(DeviceError, match="is in use") as caught:
            second.describe()
        assert caught.value.got.startswith("process ")
        waiting = agent(device, wait_s=20.0)
        threading.Timer(0.3, first._connection.close).start()
        with waiting:
            assert waiting.describe().free_bytes > 0


def test_what_a_killed_agent_left_is_swept(device: Path, model: Path) -> None:
    left = root(device) / "run-killed" / "request-1"
    left.mkdir(parents=True)
    root(device).chmod(0o700)
    (left / "inputs.bin").write_bytes(b"x" * 1000)
    with agent(device) as there:
        there.run(load_on(model, ORT))
        assert not left.exists()
    assert is_clean(device)


def workers(folder: Path) -> list[int]:
    """Processes that work in the folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().split(b"\0")
        except OSError:
            continue
        if any(w.startswith(os.fsencode(folder)) and b"request-" in w for w in words):
            found.append(int(entry.parent.name))
    return found


def when_it_works(folder: Path, act: Any) -> threading.Thread:
    def wait() -> None:
        end_s = time.monotonic() + 30
        while not (pids := workers(folder)) and time.monotonic() < end_s:
            time.sleep(0.02)
        time.sleep(0.3)
        act(pids)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


LONG = MeasureRule(percentile=90, min_duration_s=3, max_duration_s=20)


def test_a_worker_that_is_killed_is_explained(device: Path, model: Path) -> None:
    killer = when_it_works(device, lambda pids: [os.kill(p, signal.SIGKILL) for p in pids])
    with agent(device) as there, pytest.raises(DeviceError, match="died") as caught:
        there.measure([load_on(model, ORT)], LONG, inputs="-", progress=Silent())
    killer.join()
    assert caught.value.got == "killed by signal 9"
    assert is_clean(device)


def test_an_agent_that_is_killed_leaves_no_worker_and_the_next_one_cleans_up(
    device: Path, model: Path
) -> None:
    def kill_the_agent(pids: list[int]) -> None:
        stat = Path(f"/proc/{pids[0]}/stat").read_text()
        os.kill(int(stat.rpartition(")")[2].split()[1]), signal.SIGKILL)

    killer = when_it_works(device, kill_the_agent)
    with agent(device, wait_s=10.0) as there:  # the second connection does all of it
        (profile,) = there.measure([load_on(model, ORT)], LONG, inputs="-", progress=Silent())
    killer.join()
    assert sum(profile.samples_ns) >= 3e9
    assert becomes_clean(device)
    assert workers(device) == []


def test_a_worker_that_takes_too_long_is_ended(device: Path, model: Path) -> None:
    load = load_on(model, ORT)
    with agent(device, timeout_s=0.01) as there:
        # the greeting may take longer than that
        object.__setattr__(there._link, "timeout_s", 20.0)
        there.describe()
        object.__setattr__(there._link, "timeout_s", 0.01)
        with pytest.raises(DeviceError, match=r"took too long|not answer any more"):
            there.run(load)
    assert becomes_clean(device)


def test_a_folder_that_others_may_write_to_is_refused(device: Path) -> None:
    root(device).mkdir()
    root(device).chmod(0o777)
    with agent(device) as there, pytest.raises(DeviceError, match="cannot work in its folder"):
        there.describe()
    root(device).rmdir()
    root(device).symlink_to(device)
    with agent(device) as there, pytest.raises(DeviceError, match="cannot work in its folder"):
        there.describe()


def test_an_axis_that_a_file_marks_by_minus_one_is_open(device: Path, tmp_path: Path) -> None:
    model = onnx.load_from_string(convolution_net(quantized=True))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    path = tmp_path / "open.onnx"
    path.write_bytes(model.SerializeToString())
    with agent(device) as there:
        (spec,) = there.inputs(path, ORT)
    assert spec.shape == (None, 3, 8, 8)


@pytest.mark.shared
def test_what_files_of_others_ask_for_is_what_the_runtime_says(
    device: Path, shared_data: Path
) -> None:
    paths = sorted((shared_data / "onnx").glob("*.onnx"))
    assert len(paths) >= 11
    with agent(device) as there, LocalDevice() as here:
        for path in paths:
            assert tuple(there.inputs(path, ORT)) == tuple(here.inputs(path, ORT)), path.name


def ask(there: RemoteDevice, load: Any) -> None:
    there.runtime(load.target)
    there.run(load)


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        (
            {"options": {"no.such.option": 1}, "backend": "openvino"},
            UnsupportedError,
            "cannot load",
        ),
        (
            {"backend": "reference", "options": {}},
            UnsupportedError,
            "only be measured where edgekd",
        ),
    ],
)
def test_what_a_device_cannot_do_is_said(
    changes: dict[str, Any], error: type[EdgekdError], text: str, device: Path, model: Path
) -> None:
    target = ORT.model_copy(update=changes)
    with agent(device) as there, pytest.raises(error, match=text):
        ask(there, load_on(model, target))
    assert is_clean(device)


def test_inputs_that_the_model_cannot_take_are_explained(device: Path, model: Path) -> None:
    load = load_on(model, ORT)
    object.__setattr__(load, "feeds", [{"input": np.zeros((1, 9, 8, 8), np.float32)}])
    with agent(device) as there, pytest.raises(DeviceError, match="The model fails on the pipe"):
        there.run(load)
    assert is_clean(device)
