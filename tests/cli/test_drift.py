"""The same file in two environments, through the command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edgekd.cli.drift import _complaints
from edgekd.cli.main import run
from edgekd.core.target import load_target
from edgekd.core.types import KernelCount
from edgekd.profile.drift import Drift, OutputDrift, Side
from edgekd.testing.onnx_models import convolution_net

TARGET = load_target("x86-onnxruntime-int8")
QUICK = ["--rounds", "1", "--duration", "0.01"]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "net.onnx"
    path.write_bytes(convolution_net(quantized=True, codes="uint8", integer_bias=True))
    return path


def drift(model: Path, first: str, second: str, *more: str) -> list[str]:
    words = ["drift", str(model), "--python", first, "--python", second]
    return [*words, "--target", TARGET.name, *QUICK, *more]


def test_an_environment_does_not_drift_from_itself(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = drift(model, sys.executable, sys.executable, "--json", "--max-difference", "0")
    assert run(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["first"]["runtime"] == found["second"]["runtime"]
    assert found["first"]["kernels"] == found["second"]["kernels"]
    assert all(output["equal"] and output["largest"] == 0 for output in found["outputs"])
    assert len(found["ratios"]) == 1
    assert found["ratio"] == found["ratios"][0] > 0


@pytest.mark.parametrize(
    ("second", "code", "says"),
    [
        ("/no/such/python", 3, "cannot be started"),
        ("/bin/false", 6, "cannot start edgekd's agent"),
    ],
)
def test_what_is_no_environment_is_said(
    model: Path, capsys: pytest.CaptureFixture[str], second: str, code: int, says: str
) -> None:
    assert run(drift(model, sys.executable, second)) == code
    assert says in capsys.readouterr().err


def test_one_environment_is_not_enough(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["drift", str(model), "--python", sys.executable]) == 2
    assert "Two environments are compared" in capsys.readouterr().err


def test_a_gate_fails_on_time_and_on_outputs() -> None:
    side = Side("x", "1", {}, (1.0,), KernelCount(1, 0, 0))
    outputs = (
        OutputDrift("logits", 0.5, 0.04, equal=False),
        OutputDrift("constant", 0.1, None, equal=False),
    )
    found = Drift(side, side, (1.2, 1.0, 1.3), outputs)
    assert found.ratio == 1.2
    assert _complaints(found, None, None) == []
    assert _complaints(found, 1.25, 0.05) == ["constant moved by inf of its spread"]
    assert len(_complaints(found, 1.1, 0.01)) == 3


@pytest.mark.slow
def test_an_older_runtime(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = tmp_path / "old"
    python = str(old / "bin" / "python")
    subprocess.run([sys.executable, "-m", "venv", str(old)], check=True)
    wanted = ["onnxruntime==1.22.1", "numpy<2.4"]
    done = subprocess.run([python, "-m", "pip", "install", "-q", *wanted], check=False)
    if done.returncode:
        pytest.skip("onnxruntime 1.22.1 cannot be installed here")
    capsys.readouterr()
    assert run(drift(model, python, sys.executable, "--json")) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["first"]["runtime"] == "1.22.1" != found["second"]["runtime"]
    assert found["first"]["environment"]["versions"]["onnxruntime"] == "1.22.1"
    (output,) = found["outputs"]
    assert output["mean_of_spread"] < 0.05
