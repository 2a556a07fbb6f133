from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgekd.cli.main import run
from edgekd.testing.onnx_models import convolution_net

QUICK = ["--min-duration", "0"]


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    paths = tmp_path / "float[1].onnx", tmp_path / "int8.onnx"
    paths[0].write_bytes(convolution_net(quantized=False))
    paths[1].write_bytes(convolution_net(quantized=True, integer_bias=False))
    return str(paths[0]), str(paths[1])


def test_two_files_on_one_target(
    files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["explain", *files, "--target", "x86-onnxruntime-int8", *QUICK]) == 0
    out = capsys.readouterr().out
    assert out.startswith("first:  float[1].onnx on x86-onnxruntime-int8\nsecond: int8.onnx on ")
    assert " times as fast as the first\n" in out
    # ONNX Runtime leaves a convolution with a float bias in float
    assert "- 1 convolution or product in float: " in out
    assert "; bias is float\n" in out
    assert "  to do: store the bias as int32 behind a DequantizeLinear, or try OpenVINO\n" in out
    assert "Q/DQ node left standing inside the graph: " in out


def test_one_file_on_two_targets_as_json(
    files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    targets = ["--target", "x86-onnxruntime-int8", "--target", "x86-openvino-int8"]
    assert run(["explain", files[1], *targets, *QUICK, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    counts = [
        {name: part["count"] for name, part in found[side]["categories"].items()}
        for side in ("first", "second")
    ]
    assert (counts[0]["matmul float"], counts[0]["matmul int8"]) == (1, 1)
    assert (counts[1]["matmul float"], counts[1]["matmul int8"]) == (0, 2)
    assert {"conv", "fc"} <= {pair["name"] for pair in found["pairs"] if pair["first_us"]}
    assert {"conv", "fc"} <= {pair["name"] for pair in found["pairs"] if pair["second_us"]}
    assert found["first"]["latency_us"] > 0
    assert found["second"]["title"] == "int8.onnx on x86-openvino-int8"
    for finding in found["findings"]:
        assert set(finding) == {"title", "time_us", "what_to_change", "read_from"}


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["{first}"], "got:      one file and 0 --target"),
        (["{first}", "--target", "x86-openvino-fp32"], "got:      one file and 1 --target"),
        (
            ["{first}", "{second}", *(["--target", "x86-openvino-fp32"] * 3)],
            "got:      two files and 3 --target",
        ),
        (["{first}", "{first}"], "Both models are the same.\n  expected: two different files"),
        (["{first}", "{copy}"], "Both models are the same."),
        (["{first}", "no.onnx"], "no.onnx does not exist."),
        (["no.onnx", "{first}"], "no.onnx does not exist."),
        (["{first}", "{second}", "--min-duration", "99"], "min_duration_s is above max_"),
        (["{first}", "{second}", "--shape", "input"], "--shape input is not a shape."),
        (["{first}", "{second}", "--target", "x86-openvino-fp33"], "Did you mean"),
    ],
)
def test_mistakes_are_one_clear_message(
    arguments: list[str],
    text: str,
    files: tuple[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    copy = tmp_path / "copy.onnx"
    copy.write_bytes(Path(files[0]).read_bytes())
    names = {"{first}": files[0], "{second}": files[1], "{copy}": str(copy)}
    assert run(["explain", *(names.get(a, a) for a in arguments)]) == 2
    captured = capsys.readouterr()
    assert text in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""
