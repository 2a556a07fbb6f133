from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgekd.core.errors import DeviceError
from edgekd.core.target import load_target
from edgekd.profile.inputs import save_feeds
from edgekd.profile.memory import peak_memory
from edgekd.testing.onnx_models import INPUT, INPUT_SHAPE, GraphBuilder, convolution_net

ORT = load_target("x86-onnxruntime-fp32")


@pytest.fixture
def feeds(tmp_path: Path) -> Path:
    path = tmp_path / "feeds.npz"
    save_feeds(path, {INPUT: np.zeros(INPUT_SHAPE, np.float32)})
    return path


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.onnx"
    path.write_bytes(convolution_net(quantized=False))
    return path


def large(folder: Path, mib: int) -> Path:
    """A product with `mib` MiB of weights, all of them different."""
    b = GraphBuilder()
    x = b.node("Reshape", [INPUT, b.constant("flat", np.array([1, 192]))], "row")
    width = mib * 2**20 // (4 * 192)
    weight = np.arange(192 * width, dtype=np.float32).reshape(192, width)
    x = b.node("MatMul", [x, b.constant("weight", weight)], "product")
    path = folder / "large.onnx"
    path.write_bytes(b.model(x, output_shape=(1, width)))
    return path


@pytest.mark.parametrize("target_name", ["x86-onnxruntime-fp32", "x86-openvino-fp32"])
def test_the_peak_lies_above_the_runtime_and_far_below_this_process(
    target_name: str, small: Path, feeds: Path
) -> None:
    """A fresh process with numpy and a runtime takes 40 to 150 MiB, a tiny model some more."""
    ballast = np.ones(64 * 2**20, np.float32)  # 256 MiB that a forked child's maxrss would hold
    figure = peak_memory(small, load_target(target_name), feeds)
    assert 20 < figure.runtime_mib < figure.peak_mib < 256
    assert ballast[0] == 1


def test_weights_show_up_in_the_peak(tmp_path: Path, small: Path, feeds: Path) -> None:
    """48 MiB of weights are held once at least; the runtime may copy them while it loads."""
    before = peak_memory(small, ORT, feeds)
    after = peak_memory(large(tmp_path, 48), ORT, feeds)
    assert 47 < after.peak_mib - before.peak_mib < 48 * 4
    assert abs(after.runtime_mib - before.runtime_mib) < 20


def test_the_fresh_process_holds_no_framework(small: Path, feeds: Path) -> None:
    program = (
        "import sys; from edgekd.profile import memory; from pathlib import Path; "
        "memory._child(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]); "
        "print([m for m in ('torch', 'onnx', 'openvino') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(small), str(feeds), ORT.model_dump_json()],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"


def test_a_process_that_fails_is_explained(tmp_path: Path, feeds: Path) -> None:
    empty = tmp_path / "empty.onnx"
    empty.touch()
    with pytest.raises(DeviceError, match=r"measured the memory of .* died") as caught:
        peak_memory(empty, ORT, feeds)
    assert "empty.onnx is empty." in caught.value.got
    assert caught.value.exit_code == 6


def test_a_process_that_is_killed_is_explained(small: Path, feeds: Path, monkeypatch) -> None:
    def killed(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, -9, "", "")

    monkeypatch.setattr(subprocess, "run", killed)
    with pytest.raises(DeviceError) as caught:
        peak_memory(small, ORT, feeds)
    assert caught.value.got == "killed by signal 9"
    assert "more memory than there is" in caught.value.todo


def test_a_process_that_hangs_is_ended(small: Path, feeds: Path) -> None:
    with pytest.raises(DeviceError, match="took too long") as caught:
        peak_memory(small, ORT, feeds, timeout_s=0.01)
    assert caught.value.expected == "10 inferences in 0.01 s"
