from __future__ import annotations

import hashlib
import json
from pathlib import Path

import onnx
import pytest

from edgekd.backends._contract import BACKENDS
from edgekd.cli.main import run
from edgekd.core.errors import MissingDependencyError
from edgekd.testing.onnx_models import convolution_net, with_external_data

ORT, RTX = "x86-onnxruntime-int8", "rtx-tensorrt-int8"


@pytest.fixture
def rtx() -> None:
    try:
        BACKENDS.get("tensorrt_rtx")
    except MissingDependencyError as e:
        pytest.skip(e.failed)


def written(folder: Path, **kind: object) -> Path:
    path = folder / "net.onnx"
    path.write_bytes(convolution_net(**kind))  # type: ignore[arg-type]
    return path


@pytest.mark.usefixtures("rtx")
def test_an_engine_for_a_gpu_that_is_not_here(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, quantized=True, codes="int8", integer_bias=False)
    out = tmp_path / "built"
    assert run(["build", str(path), "--target", RTX, "--out", str(out)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"{out}/net.engine: ")
    assert " built by tensorrt_rtx " in said[0]
    assert said[1] == "as compiled: 2 int8 kernels, 0 float"
    assert said[2] == "not run: edgekd builds engines for TensorRT-RTX and does not run them"
    assert [p.name for p in out.iterdir()] == ["net.engine"]


@pytest.mark.usefixtures("rtx")
def test_float_kernels_come_with_their_reasons(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, quantized=False)
    assert run(["build", str(path), "--target", RTX, "--out", str(tmp_path / "built")]) == 0
    out = capsys.readouterr().out
    assert "as compiled: 0 int8 kernels, 2 float\n" in out
    assert out.count(": input and weights are float\n") == 2


@pytest.mark.usefixtures("rtx")
def test_what_would_be_misread_exits_with_4(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, quantized=True)
    assert run(["build", str(path), "--target", RTX, "--out", str(tmp_path / "built")]) == 4
    said = capsys.readouterr().err
    assert "would refuse or misread the QuantizeLinear 'input/codes'" in said
    assert list((tmp_path / "built").iterdir()) == []


def test_weights_beside_the_file_go_into_the_artifact(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = convolution_net(quantized=True)
    path = with_external_data(model, tmp_path / "net.onnx", location="weights.bin")
    out = tmp_path / "built"
    assert run(["build", str(path), "--target", ORT, "--out", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    made = out / "net.onnx"
    assert found["path"] == str(made)
    assert found["sha256"] == hashlib.sha256(made.read_bytes()).hexdigest()
    assert found["size_bytes"] == made.stat().st_size
    assert (found["kernels"], found["not_run"]) == (None, ""), "it runs here: see `profile`"
    stored = onnx.load(made, load_external_data=False).graph.initializer
    assert all(i.data_location == onnx.TensorProto.DEFAULT for i in stored)


def test_the_file_itself_is_never_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, quantized=True)
    before = path.read_bytes()
    assert run(["build", str(path), "--target", ORT, "--out", str(tmp_path)]) == 2
    assert "would be written beside" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_a_file_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"<html>404</html>")
    assert run(["build", str(path), "--target", ORT, "--out", str(tmp_path / "built")]) == 2
    assert "is not an ONNX file" in capsys.readouterr().err
    assert not (tmp_path / "built").exists()
