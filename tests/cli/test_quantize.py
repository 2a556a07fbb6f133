"""`edgekd quantize` as a user meets it: results, refusals, bad input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgekd.cli.main import run
from edgekd.testing.onnx_models import INPUT, convolution_net, with_external_data

QUICK = ["--min-duration", "0", "--percentile", "50"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A float model, samples for it, and the working folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net[1].onnx").write_bytes(convolution_net(quantized=False))
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "data.npz", **{INPUT: rng.normal(size=(16, 3, 8, 8)).astype(np.float32)})
    return tmp_path


def test_everything_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["quantize", "net[1].onnx", "--data", "data.npz", *QUICK]) == 0
    out = capsys.readouterr().out
    assert out.startswith("net[1].onnx -> net[1].int8.onnx on x86-onnxruntime-int8\n")
    assert "data: 12 of 16 samples from data.npz, 4 others held out\n" in out
    assert "layers: 2 stored in int8, 0 left in float\n" in out
    assert "as the runtime runs them: 2 int8, 0 float; 0 Q/DQ nodes unfused\n" in out
    assert "rounding: the file as written against float; runtime: " in out
    assert "p50 certified" in out
    assert (folder / "net[1].int8.onnx").is_file()


def test_json_holds_what_was_found(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["net[1].onnx", "--data", "data.npz", "--out", "q/out.onnx", "--samples", "5"]
    target = ["--target", "x86-openvino-int8", "--keep-float", "fc"]
    assert run(["quantize", *arguments, *target, *QUICK, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == "edgekd.quantized/1"
    assert found["artifact"] == "q/out.onnx"
    assert found["calibration"] == {
        "real": True,
        "samples": 5,
        "held_out": 4,
        "note": "5 of 16 samples from data.npz, 4 others held out",
    }
    assert found["quantized"] == ["conv"]
    assert found["skipped"] == {"fc": "kept in float by the pattern 'fc'"}
    assert found["kernels"]["int8"] == found["kernels"]["float"] == 1
    [output] = found["parity"]["total"]
    assert output["name"] == "logits"
    assert output["snr_db"] > 25
    assert found["size_bytes"]["after"] == (folder / "q" / "out.onnx").stat().st_size
    assert found["latency_ms"]["int8"]["p50"]["certified"] > 0
    assert found["speedup"]["speedup_p50"] > 0
    assert found["conditions"]["interleaved_with"] == 1
    assert found["failures"] == []


def test_random_data_is_never_passed_off_as_calibration(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = "calibrated on random data: ranges are not those of real inputs"
    assert run(["quantize", "net[1].onnx", "--data", "random", "--samples", "4", *QUICK]) == 0
    out = capsys.readouterr().out
    assert said in out
    assert "int8 against the float file: withheld: random data says nothing about" in out
    assert "rounding" not in out
    arguments = ["--data", "random", "--samples", "4", "--min-snr", "200"]
    assert run(["quantize", "net[1].onnx", *arguments, *QUICK, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["calibration"]["real"] is False
    assert found["calibration"]["note"] == said
    assert found["parity"]["rounding"] is found["parity"]["total"] is None
    assert found["parity"]["withheld"]
    assert found["conditions"]["inputs"] == "random, seed 0"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--min-snr", "200"], "parity: 'logits': "),
        (["--min-snr", "200"], " dB, wanted 200 dB"),
    ],
)
def test_a_tolerance_that_is_missed_is_exit_5(
    arguments: list[str], text: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["quantize", "net[1].onnx", "--data", "data.npz", *arguments, *QUICK]) == 5
    assert text in capsys.readouterr().err


def damaged(folder: Path, name: str) -> None:
    """Write the bad file of that name."""
    data = (folder / "net[1].onnx").read_bytes()
    if name == "cut.onnx":
        (folder / name).write_bytes(data[: len(data) // 2])
    elif name == "empty.onnx":
        (folder / name).write_bytes(b"")
    elif name == "outside.onnx":
        with_external_data(data, folder / name, location="../secret.bin")
    elif name == "int8.onnx":
        (folder / name).write_bytes(convolution_net(quantized=True))
    elif name == "nan.onnx":
        proto = onnx.load_from_string(data)
        weight = next(i for i in proto.graph.initializer if i.name == "conv.weight")
        values = onnx.numpy_helper.to_array(weight).copy()
        values[0] = np.nan
        weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
        (folder / name).write_bytes(proto.SerializeToString())
    elif name == "relu.onnx":
        proto = onnx.load_from_string(data)
        kept = [n for n in proto.graph.node if n.op_type == "Relu"]
        kept[0].input[:], kept[0].output[:] = ["input"], ["logits"]
        del proto.graph.node[:]
        proto.graph.node.extend(kept)
        proto.graph.output[0].type.tensor_type.ClearField("shape")
        (folder / name).write_bytes(proto.SerializeToString())


@pytest.mark.parametrize(
    ("name", "code", "text"),
    [
        ("cut.onnx", 2, "cut.onnx is cut off."),
        ("empty.onnx", 2, "empty.onnx is empty."),
        ("missing.onnx", 2, "missing.onnx does not exist."),
        ("outside.onnx", 2, "points at a file outside its folder: '../secret.bin'"),
        ("int8.onnx", 4, "int8.onnx is quantized already."),
        ("nan.onnx", 2, "not finite"),
        ("relu.onnx", 4, "No layer of the model can be quantized."),
    ],
)
def test_bad_models_are_one_clear_message(
    name: str, code: int, text: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged(folder, name)
    before = {p.name for p in folder.iterdir()}
    assert run(["quantize", name, "--data", "data.npz", *QUICK]) == code
    captured = capsys.readouterr()
    assert text in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""
    assert {p.name for p in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--data", "nothing.npz"], "There is no file nothing.npz."),
        (["--data", "data.npz", "--target", "x86-openvino-fp32"], "is for float files."),
        (["--data", "data.npz", "--target", "x86-openvino-int9"], "Did you mean"),
        (["--data", "data.npz", "--keep-float", "cnv"], "--keep-float cnv matches no layer."),
        (["--data", "data.npz", "--shape", "input=1x3x8x8"], "real samples bring their own"),
        (["--data", "data.npz", "--out", "x.bin"], "--out x.bin is no .onnx."),
        (["--data", "data.npz", "--out", "net[1].onnx"], "is the float model itself."),
        (["--data", "data.npz", "--class-axis", "logits"], "--class-axis logits is not an axis."),
        (["--data", "data.npz", "--class-axis", "l=1"], "names no output of the model: 'l'"),
        (["--data", "data.npz", "--class-axis", "logits=7"], "the output has no such axis"),
        (["--data", "data.npz", "--min-duration", "99"], "min_duration_s is above max_"),
        ([], "Missing parameter: data"),
    ],
)
def test_mistakes_are_one_clear_message(
    arguments: list[str], text: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["quantize", "net[1].onnx", *arguments]) == 2
    captured = capsys.readouterr()
    assert text in captured.err
    assert "Traceback" not in captured.err


def test_an_open_shape_is_asked_for_with_random_data_and_read_off_real_data(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    proto = onnx.load_from_string(convolution_net(quantized=False, batch="n"))
    for axis in (2, 3):
        proto.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = f"side{axis}"
    (folder / "open.onnx").write_bytes(proto.SerializeToString())
    assert run(["quantize", "open.onnx", "--data", "random", *QUICK]) == 2
    assert "give --shape input=1x3x320x320" in capsys.readouterr().err
    shape = ["--shape", "input=1x3x8x8", "--samples", "4"]
    assert run(["quantize", "open.onnx", "--data", "random", *shape, *QUICK]) == 0
    assert run(["quantize", "open.onnx", "--data", "data.npz", *QUICK]) == 0
    # what was open stays open
    made = onnx.load(folder / "open.int8.onnx").graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in made] == ["n", 3, "side2", "side3"]
