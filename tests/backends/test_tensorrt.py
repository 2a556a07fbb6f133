"""The backend around a stand-in for trtexec, which answers with reports written by hand.

What is shown is how the program is called and how its answers are taken; no engine is built, and
nothing here has run on a GPU.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgekd.backends import tensorrt
from edgekd.backends._contract import BACKENDS
from edgekd.backends._kernels import count_kernels
from edgekd.backends._runtime import check_runtime
from edgekd.backends._tensorrt import trtexec
from edgekd.backends._tensorrt.cuda import gpu_count
from edgekd.core.errors import (
    DataError,
    DeviceError,
    MissingDependencyError,
    UnsupportedError,
)
from edgekd.core.target import load_target
from edgekd.testing.onnx_models import INPUT, INPUT_SHAPE, convolution_net

BY_HAND = Path(__file__).parent.parent / "data" / "trtexec_by_hand"
JETSON, GPU = load_target("jetson-orin-tensorrt-int8"), load_target("gpu-tensorrt-int8")
BACKEND = BACKENDS.get("tensorrt")()
MODEL = convolution_net(quantized=True, codes="int8", integer_bias=False)
FEEDS = {INPUT: np.random.default_rng(0).standard_normal(INPUT_SHAPE).astype(np.float32)}
STAND_IN = """#!{python}
import json, pathlib, shutil, sys
folder = pathlib.Path({folder!r})
flags = dict(a.partition("=")[::2] for a in sys.argv[1:])
print("&&&& RUNNING TensorRT.trtexec [TensorRT v{banner}] [b26] # trtexec")
if "--help" in flags:
    sys.exit(0)
seen = {{name: pathlib.Path(name).stat().st_size for name in
        (p.partition(":")[2] for p in flags.get("--loadInputs", "").split(",") if p)}}
with (folder / "calls.jsonl").open("a") as f:
    f.write(json.dumps({{"arguments": sys.argv[1:], "inputs": seen}}) + "\\n")
{more}
if "--saveEngine" in flags:
    pathlib.Path(flags["--saveEngine"]).write_bytes(pathlib.Path(flags["--onnx"]).read_bytes())
else:
    pathlib.Path(flags["--loadEngine"]).read_bytes()
for flag, report in (("--exportTimes", "times"), ("--exportProfile", "profile"),
                     ("--exportLayerInfo", "layers"), ("--exportOutput", "outputs")):
    if flag in flags:
        shutil.copy(folder / f"{{report}}.json", flags[flag])
"""
Make = Callable[..., Path]


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Put a stand-in on the path; returns the folder of its answers and of what it was asked."""
    folder = tmp_path / "stand-in"
    folder.mkdir()
    for report in BY_HAND.glob("*.json"):
        (folder / report.name).write_bytes(report.read_bytes())

    def call(banner: str = "100300", more: str = "") -> Path:
        program = folder / "trtexec"
        program.write_text(
            STAND_IN.format(python=sys.executable, folder=str(folder), banner=banner, more=more)
        )
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(folder))
        return folder

    return call


def calls(folder: Path) -> list[dict[str, object]]:
    path = folder / "calls.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def written(folder: Path, model: bytes = MODEL) -> Path:
    path = folder / "student.onnx"
    path.write_bytes(model)
    return path


@pytest.mark.parametrize(
    ("banner", "version"), [("8601", "8.6.1"), ("100300", "10.3.0"), ("110104", "11.1.4")]
)
def test_the_version_is_read_off_the_banner(stand_in: Make, banner: str, version: str) -> None:
    stand_in(banner)
    assert BACKEND.version() == version


def test_a_version_out_of_range_is_refused(stand_in: Make) -> None:
    stand_in("110100")
    with pytest.raises(UnsupportedError, match="needs another version of tensorrt") as caught:
        check_runtime(JETSON)
    assert (caught.value.expected, caught.value.got) == ("tensorrt >=10,<11", "11.1.0")
    assert caught.value.todo == "install tensorrt >=10,<11 as its maker says"


def test_a_machine_without_the_program_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(trtexec, "USUAL_FOLDER", str(tmp_path))
    with pytest.raises(MissingDependencyError, match="needs the program trtexec") as caught:
        check_runtime(JETSON)
    assert caught.value.exit_code == 3
    assert "JetPack has it" in caught.value.todo


@pytest.mark.skipif(gpu_count() > 0, reason="this machine has an NVIDIA GPU")
def test_a_machine_without_a_gpu_is_refused_before_any_training(stand_in: Make) -> None:
    stand_in()
    with pytest.raises(UnsupportedError, match="cannot be measured on this machine") as caught:
        check_runtime(JETSON)
    assert caught.value.exit_code == 4
    assert "NVIDIA GPU" in caught.value.expected
    assert "on the device itself" in caught.value.todo


def test_a_program_that_is_another_is_refused(tmp_path: Path) -> None:
    program = tmp_path / "trtexec"
    program.write_text("#!/bin/sh\necho usage: rm\n")
    program.chmod(0o755)
    with pytest.raises(DeviceError, match="does not tell its version") as caught:
        trtexec.version(program)
    assert caught.value.got == "usage: rm"
    program.write_text("no program")
    with pytest.raises(DeviceError, match="does not run"):
        trtexec.version(program)


@pytest.mark.parametrize(("target", "banner"), [(JETSON, "100300"), (GPU, "110100")])
def test_an_engine_is_built_and_the_file_kept(
    target: object, banner: str, stand_in: Make, tmp_path: Path
) -> None:
    asked = stand_in(banner)
    out = tmp_path / "out"
    out.mkdir()
    path = BACKEND.build(MODEL, target, out / "student")  # type: ignore[arg-type]
    assert path == out / "student.onnx"
    assert path.read_bytes() == MODEL
    assert list(out.iterdir()) == [path]
    (one,) = calls(asked)
    arguments = one["arguments"]
    assert isinstance(arguments, list)
    assert arguments[:3] == ["--onnx=model.onnx", "--saveEngine=model.engine", "--skipInference"]
    assert ("--stronglyTyped" in arguments) == (banner == "100300")


def test_what_would_be_misread_never_reaches_the_program(stand_in: Make, tmp_path: Path) -> None:
    asked = stand_in()
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(UnsupportedError, match="TensorRT would refuse or misread"):
        BACKEND.build(convolution_net(quantized=True), JETSON, out / "student")
    with pytest.raises(UnsupportedError, match="leaves an axis open"):
        BACKEND.build(convolution_net(quantized=False, batch="n"), JETSON, out / "student")
    assert calls(asked) == []
    assert list(out.iterdir()) == []


def test_outputs_times_and_layers_are_taken_from_the_reports(
    stand_in: Make, tmp_path: Path
) -> None:
    asked = stand_in()
    with BACKEND.open(written(tmp_path), JETSON, threads=1) as session:
        assert [(s.name, s.shape) for s in session.inputs] == [(INPUT, INPUT_SHAPE)]
        (logits,) = session.run(FEEDS).values()
        assert (logits.shape, logits.dtype) == ((1, 5), np.float32)
        assert isinstance(session, tensorrt.TensorRtSession)
        assert session.samples_ns(FEEDS, runs=3, warm_up_ms=200) == [890_000, 860_000, 1_000_000]
        layers = session.layers(FEEDS)
    counted = count_kernels(layers)
    assert (counted.int8, counted.float, counted.unfused) == (2, 0, 1)
    assert [x.time_us for x in layers] == [5.0, 20.0, 5.0, 10.0, 10.0, None]
    assert layers[1].name == "conv.code + conv.code/real + conv + relu [conv]"
    build, *rest = calls(asked)
    assert build["inputs"] == {}
    size = 4 * int(np.prod(INPUT_SHAPE))
    assert [one["inputs"] for one in rest] == [{"input-0.bin": size}] * 3


def test_a_session_leaves_nothing_behind(
    stand_in: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    stand_in()
    session = BACKEND.open(written(tmp_path), JETSON, threads=1)
    assert len(list(place.iterdir())) == 1
    session.close()
    session.close()
    stand_in(more='print("[E] [TRT] no memory"); sys.exit(1)')
    with pytest.raises(UnsupportedError, match="trtexec refuses"):
        BACKEND.open(written(tmp_path), JETSON, threads=1)
    assert list(place.iterdir()) == []


def test_a_call_without_a_report_does_not_take_the_last_ones(
    stand_in: Make, tmp_path: Path
) -> None:
    asked = stand_in()
    with BACKEND.open(written(tmp_path), JETSON, threads=1) as session:
        session.run(FEEDS)
        stand_in(more="sys.exit(0)")
        with pytest.raises(DeviceError, match=r"outputs\.json of trtexec cannot be used"):
            session.run(FEEDS)
    assert len(calls(asked)) == 3


def test_edgekds_own_clock_is_never_put_around_the_program(stand_in: Make, tmp_path: Path) -> None:
    stand_in()
    with (
        BACKEND.open(written(tmp_path), JETSON, threads=1) as session,
        pytest.raises(UnsupportedError, match="cannot be timed by edgekd's own clock"),
    ):
        session.bind(FEEDS)


def test_wrong_feeds_are_refused(stand_in: Make, tmp_path: Path) -> None:
    asked = stand_in()
    with BACKEND.open(written(tmp_path), JETSON, threads=1) as session:
        for feeds in ({}, {INPUT: FEEDS[INPUT].astype(np.float64)}, {INPUT: FEEDS[INPUT][:, :2]}):
            with pytest.raises(DataError):
                session.run(feeds)
    assert len(calls(asked)) == 1


@pytest.mark.parametrize(
    ("more", "error", "got"),
    [
        (
            "print('[11/21/2026-10:00:00] [E] Error[9]: no kernel'); sys.exit(1)",
            UnsupportedError,
            "Error[9]: no kernel",
        ),
        ("print('[E] x'); import os; os.kill(os.getpid(), 9)", DeviceError, "signal 9"),
        ("sys.exit(3)", DeviceError, "exit code 3, no reason given"),
        ("print('x' * 10**6 + '\\n[E] at the end'); sys.exit(1)", UnsupportedError, "at the end"),
    ],
    ids=["refused", "killed", "silent", "talkative"],
)
def test_a_failure_is_one_error(
    more: str, error: type[Exception], got: str, stand_in: Make, tmp_path: Path
) -> None:
    stand_in(more=more)
    with pytest.raises(error) as caught:
        BACKEND.open(written(tmp_path), JETSON, threads=1)
    assert got in caught.value.got  # type: ignore[attr-defined]


def test_a_program_that_hangs_is_ended(
    stand_in: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trtexec, "_TIMEOUT_S", 0.5)
    stand_in(more="import time; time.sleep(60)")
    with pytest.raises(DeviceError, match="took too long"):
        BACKEND.open(written(tmp_path), JETSON, threads=1)


def test_a_node_without_a_name_is_named_before_the_engine_is_built(
    stand_in: Make, tmp_path: Path
) -> None:
    model = onnx.load_from_string(MODEL)
    for node in model.graph.node:
        node.name = ""
    stand_in()
    path = written(tmp_path, model.SerializeToString())
    counted = count_kernels(BACKEND.layers(path, JETSON, FEEDS, threads=1))
    # without names of its own a node is called as what it makes: the last one makes "logits"
    assert counted.int8 == 1
    assert counted.floats == {"logits": "the engine names no kernel for it"}
