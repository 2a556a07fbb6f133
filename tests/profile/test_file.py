"""Profiling files that edgekd did not write."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgekd.core.errors import DataError, RecipeError, UnsupportedError
from edgekd.core.hashing import sha256_file
from edgekd.core.progress import Silent
from edgekd.core.target import load_target
from edgekd.profile.file import FileProfile, profile_file
from edgekd.profile.inputs import parse_shapes
from edgekd.profile.measure import MeasureRule
from edgekd.testing.onnx_models import INPUT, convolution_net, with_external_data

ORT, OV = load_target("x86-onnxruntime-fp32"), load_target("x86-openvino-fp32")
QUICK = MeasureRule(percentile=50, min_duration_s=0, max_duration_s=5, block=4)


def profiled(path: Path, *targets, shapes: dict | None = None, npz: Path | None = None):
    return profile_file(
        path, targets, QUICK, shapes=shapes or {}, inputs_npz=npz, progress=Silent()
    )


def test_everything_is_measured_on_every_target(tmp_path: Path) -> None:
    path = with_external_data(
        convolution_net(quantized=True, batch="batch"), tmp_path / "m.onnx", location="w.bin"
    )
    found = profiled(path, load_target("x86-onnxruntime-int8"), load_target("x86-openvino-int8"))
    assert [one.target.name for one in found] == ["x86-onnxruntime-int8", "x86-openvino-int8"]
    for one in found:
        assert one.profile.artifact_sha256 == sha256_file(path)
        assert one.profile.conditions.inputs == "random, seed 0"
        assert one.profile.conditions.interleaved_with == 1
        assert one.percentiles.p50.certified is not None
        assert one.percentiles.p99.reason == "needs 662 samples"
        assert one.size_bytes == path.stat().st_size + (tmp_path / "w.bin").stat().st_size
        assert one.memory.peak_mib > one.memory.runtime_mib
        assert (one.kernels.int8, one.kernels.float, one.kernels.unfused) == (2, 0, 0)
        assert sum(layer.role == "matmul" for layer in one.layers) == 2
    assert found[0].profile.conditions == found[1].profile.conditions


def test_the_users_inputs_are_used_and_named(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(convolution_net(quantized=False, batch=2))
    npz = tmp_path / "mine.npz"
    np.savez(npz, **{INPUT: np.zeros((4, 3, 8, 8), np.float32)})
    (one,) = profiled(path, ORT, npz=npz)
    assert one.profile.conditions.inputs == "from mine.npz"
    assert one.profile.conditions.batch_size == 2
    assert one.target.conditions.batch_size == 2


def test_bad_files_and_inputs_are_explained(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.touch()
    with pytest.raises(DataError, match="is empty"):
        profiled(path, ORT)
    path.write_bytes(convolution_net(quantized=False))
    with pytest.raises(RecipeError, match="names no input of the model: 'inptu'"):
        profiled(path, ORT, shapes={"inptu": (1,)})
    with pytest.raises(DataError, match="There is no file"):
        profiled(path, ORT, npz=tmp_path / "no.npz")


# models written by others: what must be given, and how many matrix products each runtime runs
OTHERS = {
    "dtln__model_1": ([], 3),
    "magika__model": ([], 3),
    "node-editor__deeplab_v3_1_default_1": ([], 55),
    "ort-genai-tiny__past": (
        ["input_ids=1x4", "position_ids=1x4", "attention_mask=1x8"]
        + [f"past_{i}=2x1x4x4x8" for i in range(5)],
        21,
    ),
    "polygraphy__residual_block": ([], 5),
    "silero-vad__silero_vad_16k_op15": (["input=1x576", "state=2x1x128"], 7),
    "ultraface__version-RFB-320": ([], 52),
    "ultraface__version-slim-320_simplified": ([], 42),
    "yolox-nano__yolox_nano": ([], 113),
    "yunet__yunet_n_320_320": ([], 59),
    "yunet__yunet_n_dynamic": (["input=1x3x320x320"], 59),
}
#: OpenVINO itself cannot load these two; ONNX Runtime's own operators, a Conv of unknown rank
REFUSED_BY_OPENVINO = {"ort-genai-tiny__past", "silero-vad__silero_vad_16k_op15"}


@pytest.mark.shared
@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("target", [ORT, OV], ids=lambda t: t.name)
def test_models_by_others(name: str, target, shared_data: Path) -> None:
    path = shared_data / "onnx" / f"{name}.onnx"
    texts, matmuls = OTHERS[name]
    shapes = parse_shapes(texts)
    if target is OV and name in REFUSED_BY_OPENVINO:
        with pytest.raises(UnsupportedError, match="OpenVINO cannot load") as caught:
            profiled(path, target, shapes=shapes)
        assert caught.value.got
        return
    (one,) = profiled(path, target, shapes=shapes)
    check(one, matmuls)


def check(one: FileProfile, matmuls: int) -> None:
    assert one.percentiles.p50.n >= 11
    assert one.percentiles.p50.certified > 0
    assert one.size_bytes == one.path.stat().st_size
    assert 20 < one.memory.runtime_mib < one.memory.peak_mib < 512
    assert (one.kernels.int8, one.kernels.float, one.kernels.unfused) == (0, matmuls, 0)
    assert all(
        reason == "input and weights are float" or reason.endswith("not quantized")
        for reason in one.kernels.floats.values()
    )


@pytest.mark.shared
@pytest.mark.parametrize("name", [name for name, (texts, _) in OTHERS.items() if texts])
def test_open_shapes_of_models_by_others_are_asked_for(name: str, shared_data: Path) -> None:
    with pytest.raises(RecipeError, match="leaves the shape of its inputs open") as caught:
        profiled(shared_data / "onnx" / f"{name}.onnx", ORT)
    assert "--shape " in caught.value.todo
