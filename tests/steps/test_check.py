from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgekd.core.config import dump_yaml
from edgekd.core.errors import UnsupportedError
from edgekd.core.target import load_target
from edgekd.pipeline import compress

TARGET = "x86-onnxruntime-int8"


def refused(tmp_path: Path, target: str, *overrides: str) -> UnsupportedError:
    run = tmp_path / "run"
    with pytest.raises(UnsupportedError) as caught:
        compress("digits", out=run, targets=[target], overrides=overrides)
    assert caught.value.exit_code == 4
    assert not list(run.glob("**/*.safetensors"))  # nothing was trained
    return caught.value


def test_activations_without_a_kernel_are_refused_before_any_training(tmp_path: Path) -> None:
    error = refused(tmp_path, TARGET, "quantize.activation_bits=4")
    assert "x86-onnxruntime-int8 has no kernel for activations of 4 bits" in error.failed
    assert error.expected == "8 bits, or float"


def mine(tmp_path: Path, **scheme: Any) -> str:
    """A target file with other values of some fields of its scheme."""
    values = load_target(TARGET).model_dump(mode="json", exclude_none=True)
    values["name"] = "mine"
    values["scheme"].update(scheme)
    path = tmp_path / "mine.yaml"
    path.write_text(dump_yaml(values))
    return str(path)


def test_native_weights_beside_quantized_activations_are_refused_as_at_export(
    tmp_path: Path,
) -> None:
    error = refused(
        tmp_path, mine(tmp_path, low_bits="native"), "quantize.weights={name: lsq, bits: 4}"
    )
    assert error.failed == "Native low-bit weights do not go with quantized activations."
    assert "quantize.activation_bits to float" in error.todo


def test_weights_that_a_target_does_not_hold_are_refused_by_layer(tmp_path: Path) -> None:
    path = mine(tmp_path, holds={"matmul": {"kernel": [8], "storage": []}})
    error = refused(tmp_path, path, "quantize.weights={name: lsq, bits: 4}")
    assert "mine cannot hold the 4-bit weights of the layer 'head'" in error.failed
    assert "8 bits for integer kernels" in error.expected
    assert "no bits for storage alone" in error.expected
