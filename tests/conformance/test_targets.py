"""Every shipped target and every shipped profile is valid."""

from __future__ import annotations

import pytest

from edgekd.backends._contract import BACKENDS
from edgekd.backends._runtime import check_runtime
from edgekd.core.errors import MissingDependencyError, UnsupportedError
from edgekd.core.target import load_target, shipped_folder, target_names
from edgekd.profile.store import read_profile

NAMES = target_names()
#: measured where their device is, and nowhere else
NEED_A_DEVICE = {"gpu-tensorrt-int8", "jetson-orin-tensorrt-int8", "rtx-tensorrt-int8"}


def test_the_targets_that_the_readme_promises_are_shipped() -> None:
    assert set(NAMES) >= {
        "x86-onnxruntime-fp32",
        "x86-onnxruntime-int8",
        "x86-openvino-fp32",
        "x86-openvino-int8",
    }


@pytest.mark.parametrize("name", NAMES)
def test_target_is_complete(name: str) -> None:
    target = load_target(name)
    assert target.backend in BACKENDS.names()
    assert target.description
    if name in NEED_A_DEVICE:
        return
    try:
        assert check_runtime(target), "the version that the tests ran with is in its range"
    except MissingDependencyError as e:
        pytest.skip(e.failed)  # an extra that is not installed here


@pytest.mark.parametrize("name", sorted(NEED_A_DEVICE))
def test_a_target_whose_device_is_not_here_says_what_to_do(name: str) -> None:
    with pytest.raises((MissingDependencyError, UnsupportedError)) as caught:
        check_runtime(load_target(name))
    assert caught.value.todo


@pytest.mark.parametrize("name", NAMES)
def test_precision_is_in_the_name_and_explicit(name: str) -> None:
    target = load_target(name)
    assert name.endswith({"float32": "fp32", "int8": "int8"}[target.precision])
    if target.backend == "openvino":  # its default is bfloat16 on some CPUs
        assert target.options["INFERENCE_PRECISION_HINT"] == "f32"


@pytest.mark.parametrize("name", [n for n in NAMES if n.endswith("int8")])
def test_int8_targets_have_the_integers_their_runtime_fuses(name: str) -> None:
    scheme = load_target(name).scheme
    assert scheme is not None
    if "tensorrt" in name:
        assert (scheme.activations, scheme.bias) == ("int8", "float32"), "it misreads all others"
    else:
        assert scheme.activations == "uint8", "signed ones leave convolutions with ReLU in float"
    assert scheme.opset == 20, "above it ONNX Runtime refuses some int8 graphs"


def test_shipped_profiles_were_measured() -> None:
    paths = shipped_folder("profiles").rglob("*.json")
    assert {read_profile(path, measured_only=True).source for path in paths} <= {"measured"}
