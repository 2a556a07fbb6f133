"""Models that nobody here wrote: what becomes int8 in each, as ONNX Runtime runs it.

Inputs are random: this is about structure and not about accuracy.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgekd.core.errors import UnsupportedError
from edgekd.core.progress import Silent
from edgekd.core.target import load_target
from edgekd.steps.integer_file import QuantizeOptions, make

pytestmark = pytest.mark.shared

TOKENS = {"input_ids": (1, 8), "position_ids": (1, 8), "attention_mask": (1, 8)}
SHAPES = {
    "polygraphy__residual_block": {"gpu_0/data_0": (1, 3, 224, 224)},
    "yunet__yunet_n_dynamic": {"input": (1, 3, 160, 160)},
    "ort-genai-tiny__past": TOKENS | {f"past_{i}": (2, 1, 4, 0, 8) for i in range(5)},
}
LSTM = "LSTM has no integer form here"
#: model -> layers in int8 kernels, and what is left in float
FOUND = {
    "dtln__model_1": (1, {LSTM: 2}),
    "magika__model": (3, {}),
    "node-editor__deeplab_v3_1_default_1": (55, {}),
    "ort-genai-tiny__past": (16, {"Attention has no integer form here": 5}),
    "polygraphy__residual_block": (5, {}),
    "ultraface__version-RFB-320": (52, {}),
    "ultraface__version-slim-320_simplified": (42, {}),
    "yolox-nano__yolox_nano": (113, {}),
    "yunet__yunet_n_320_320": (59, {}),
    "yunet__yunet_n_dynamic": (59, {}),
}


def options(name: str, samples: int = 2) -> QuantizeOptions:
    return QuantizeOptions(
        samples=samples,
        ranges="minmax",
        weight_bits=8,
        keep_float=(),
        shapes=SHAPES.get(name, {}),
        class_axis={},
        min_snr_db=None,
        min_agreement=None,
    )


@pytest.mark.parametrize("name", sorted(FOUND))
def test_every_layer_that_has_a_kernel_runs_in_int8(
    name: str, shared_data: Path, tmp_path: Path
) -> None:
    path, target = shared_data / "onnx" / f"{name}.onnx", load_target("x86-onnxruntime-int8")
    found = make(path, "random", target, tmp_path / "q.onnx", options(name), Silent())
    layers, left = FOUND[name]
    assert found.kernels.int8 == len(found.quantized.layers) == layers
    assert found.kernels.float == len(found.quantized.skipped) == sum(left.values())
    assert set(found.quantized.skipped.values()) == set(left)
    assert found.artifact.stat().st_size < path.stat().st_size
    assert not found.samples.real


def test_a_voice_detector_keeps_its_recurrent_layers_in_float(
    shared_data: Path, tmp_path: Path
) -> None:
    path = shared_data / "onnx" / "silero-vad__silero_vad_16k_op15.onnx"
    rng = np.random.default_rng(0)
    data = tmp_path / "data.npz"
    np.savez(
        data,
        input=rng.normal(0, 0.1, (8, 576)).astype(np.float32),
        state=np.zeros((16, 1, 128), np.float32),
        sr=np.array(16000),
    )
    target = load_target("x86-onnxruntime-int8")
    found = make(path, str(data), target, tmp_path / "q.onnx", options("", 8), Silent())
    assert found.kernels.int8 == len(found.quantized.layers) == 6
    assert set(found.quantized.skipped.values()) == {"LSTM inside the If '/model/decoder/If_1'"}
    assert found.samples.real


def test_a_runtime_that_refuses_a_model_is_named(shared_data: Path, tmp_path: Path) -> None:
    name = "ort-genai-tiny__past"
    path, target = shared_data / "onnx" / f"{name}.onnx", load_target("x86-openvino-int8")
    with pytest.raises(UnsupportedError, match="OpenVINO cannot load") as e:
        make(path, "random", target, tmp_path / "q.onnx", options(name), Silent())
    assert "EmbedLayerNormalization" in e.value.got
