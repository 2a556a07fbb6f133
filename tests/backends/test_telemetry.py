"""Importing and using a runtime reports to nobody, prints nothing and leaves the home folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgekd.backends._telemetry import without_telemetry
from edgekd.testing.onnx_models import convolution_net

USE = """
import sys
from pathlib import Path
import numpy as np
from edgekd.backends._contract import BACKENDS
from edgekd.core.target import load_target

def no_network(event, args):
    if event in ("socket.connect", "socket.getaddrinfo"):
        sys.stderr.write(f"{event}{args}\\n")

sys.addaudithook(no_network)
target = load_target(sys.argv[1])
backend = BACKENDS.get(target.backend)()
feeds = {"input": np.zeros((1, 3, 8, 8), np.float32)}
with backend.open(Path(sys.argv[2]), target, threads=1) as session:
    session.run(feeds)
"""


@pytest.mark.parametrize("target", ["x86-onnxruntime-fp32", "x86-openvino-fp32"])
def test_a_runtime_is_quiet(target: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    model = tmp_path / "m.onnx"
    model.write_bytes(convolution_net(quantized=False))
    # CI alone would switch the reports off
    drop = ("CI", "XDG_CACHE_HOME", "ORT_DISABLE_TELEMETRY", "ORT_TELEMETRY_DISABLED")
    env = {k: v for k, v in os.environ.items() if k not in drop}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", USE, target, str(model)],
        capture_output=True,
        text=True,
        check=True,
        env={**env, "HOME": str(home)},
    )
    assert (done.stdout, done.stderr) == ("", "")
    assert list(home.rglob("*")) == []


def test_everything_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino_telemetry", sys)
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    monkeypatch.delenv("ORT_TELEMETRY_DISABLED", raising=False)
    with without_telemetry():
        assert sys.modules["openvino_telemetry"] is None
        assert os.environ["ORT_DISABLE_TELEMETRY"] == "0", "the user decides"
        assert os.environ["ORT_TELEMETRY_DISABLED"] == "1"
    assert sys.modules["openvino_telemetry"] is sys
    assert "ORT_TELEMETRY_DISABLED" not in os.environ
