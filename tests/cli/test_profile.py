from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgekd.cli.main import run
from edgekd.cli.profile import out_paths
from edgekd.profile.store import read_profile
from edgekd.testing.onnx_models import convolution_net

QUICK = ["--percentile", "90", "--min-duration", "0"]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "net[1].onnx"
    path.write_bytes(convolution_net(quantized=True))
    return path


def test_a_table_with_refused_percentiles(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["profile", str(model), "--target", "x86-onnxruntime-int8", *QUICK]) == 0
    out = capsys.readouterr().out
    assert out.startswith("net[1].onnx on x86-onnxruntime-int8\n")
    rows = {line.split()[1]: line for line in out.splitlines() if line.startswith("│ p")}
    assert rows["p90"].count(" ms ") == 2
    assert "needs 662 samples" in rows["p99"]
    assert "1 thread, batch 1, inputs: random, seed 0\n" in out
    assert "convolutions and matrix products: 2 int8, 0 float; 0 Q/DQ nodes unfused\n" in out
    assert "peak memory " in out


def test_float_kernels_come_with_their_reasons(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "float.onnx"
    path.write_bytes(convolution_net(quantized=False))
    assert run(["profile", str(path), *QUICK]) == 0
    out = capsys.readouterr().out
    assert out.startswith("float.onnx on x86-onnxruntime-fp32\n"), "the default target"
    assert "  2 float: input and weights are float\n" in out


def test_json_and_raw_samples_for_several_targets(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    targets = ["x86-onnxruntime-int8", "x86-openvino-int8"]
    options = [part for name in targets for part in ("--target", name)]
    out = tmp_path / "raw.json"
    assert run(["profile", str(model), *options, *QUICK, "--out", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["target"] for one in found] == targets
    for one, name in zip(found, targets, strict=True):
        profile = read_profile(tmp_path / f"raw.{name}.json", measured_only=True)
        assert profile.target == name
        assert profile.artifact_sha256 == one["sha256"]
        assert one["latency_ms"]["p90"]["n"] == len(profile.samples_ns)
        assert one["latency_ms"]["p99"]["certified"] is None
        assert one["kernels"] == {"int8": 2, "float": 0, "unfused": 0, "floats": {}}
        assert one["conditions"]["interleaved_with"] == 1
        assert one["environment"]["versions"]["onnxruntime"]
    assert not out.exists()


def test_one_target_writes_the_file_as_named() -> None:
    assert out_paths(Path("a/raw.json"), ["x"]) == [Path("a/raw.json")]
    assert out_paths(Path("raw.json"), ["x", "my/y.yaml"]) == [
        Path("raw.x.json"),
        Path("raw.y.json"),
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["no.onnx"], 2, "no.onnx does not exist."),
        (["{model}", "--shape", "input=1x2"], 2, "--shape input=1x2 does not fit the model."),
        (["{model}", "--shape", "input"], 2, "--shape input is not a shape."),
        (["{model}", "--percentile", "100"], 2, "percentile: "),
        (["{model}", "--min-duration", "99"], 2, "min_duration_s is above max_duration_s"),
        (["{model}", "--inputs", "no.npz"], 2, "There is no file no.npz."),
        (
            ["{model}", "--target", "x86-onnxruntime-fp33"],
            2,
            "Did you mean 'x86-onnxruntime-fp32'",
        ),
    ],
)
def test_mistakes_are_one_clear_message(
    arguments: list[str], code: int, text: str, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [a.replace("{model}", str(model)) for a in arguments]
    assert run(["profile", *given]) == code
    captured = capsys.readouterr()
    assert text in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""


def test_samples_that_cannot_be_written_are_explained(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "raw.json"
    assert run(["profile", str(model), *QUICK, "--out", str(out)]) == 2
    assert "cannot be written to" in capsys.readouterr().err
