from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from edgekd.backends._contract import BACKENDS
from edgekd.backends._refusal import first_line, refusal
from edgekd.core.errors import DataError, UnsupportedError
from edgekd.core.target import load_target
from edgekd.testing.onnx_models import convolution_net

MODEL = convolution_net(quantized=False)
# texts as the runtimes gave them
TEXTS = {
    "[ONNXRuntimeError] : 9 : NOT_IMPLEMENTED : Could not find an implementation for Foo(1)": (
        "NOT_IMPLEMENTED: Could not find an implementation for Foo(1)"
    ),
    "Exception from src/inference/src/cpp/core.cpp:84:\nCheck 'false' failed at src/x.cpp:151:\n"
    "FrontEnd API failed with OpConversionFailure:\nModel wasn't fully converted.\n"
    "-- Conv-15 with a message:\nWhile validating\n\nSummary:\n"
    "-- Conversion is failed for: Conv-15, ReduceMean-15\n": (
        "Conversion is failed for: Conv-15, ReduceMean-15"
    ),
    "Exception from src/core.cpp:1:\nthe reason\nmore": "the reason",
    "map::at": "map::at",
    "": "RuntimeError",
    "x" * 400: "x" * 299 + "…",
}


@pytest.mark.parametrize("text", TEXTS)
def test_the_line_that_says_what_is_wrong(text: str) -> None:
    assert first_line(RuntimeError(text)) == TEXTS[text]


@pytest.mark.parametrize("target_name", ["x86-onnxruntime-fp32", "x86-openvino-fp32"])
def test_an_operator_nobody_knows(target_name: str, tmp_path: Path) -> None:
    proto = onnx.load_from_string(MODEL)
    proto.graph.node[1].op_type = "NoSuchOperator"
    path = tmp_path / "odd.onnx"
    path.write_bytes(proto.SerializeToString())
    target = load_target(target_name)
    with pytest.raises(UnsupportedError, match="NoSuchOperator") as caught:
        BACKENDS.get(target.backend)().open(path, target, threads=1)
    assert caught.value.failed.endswith(f" cannot load {path}.")
    assert caught.value.exit_code == 4
    assert "\n" not in caught.value.got


@pytest.mark.parametrize("target_name", ["x86-onnxruntime-fp32", "x86-openvino-fp32"])
def test_damage_that_only_a_full_parse_sees(target_name: str, tmp_path: Path) -> None:
    """The field of a node's inputs becomes one that protobuf does not allow there."""
    at = MODEL.index(b"conv.weight")
    broken = MODEL[:at] + b"\xff\xfe" + MODEL[at + 2 :]  # no UTF-8, in every place it is named
    broken = broken.replace(b"conv.weight", b"\xff\xfenv.weight")
    path = tmp_path / "damaged.onnx"
    path.write_bytes(broken)
    target = load_target(target_name)
    with pytest.raises((DataError, UnsupportedError)) as caught:
        BACKENDS.get(target.backend)().open(path, target, threads=1)
    assert str(path) in caught.value.failed


def test_a_file_that_onnx_cannot_read_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(b"\x08\xff")
    error = refusal(path, path, "Some runtime", RuntimeError("Protobuf parsing failed."))
    assert isinstance(error, DataError)
    assert (error.failed, error.got) == (f"{path} is damaged.", "Protobuf parsing failed.")
    error = refusal(b"\x08\xff", path, "Some runtime", RuntimeError("Protobuf parsing failed."))
    assert isinstance(error, DataError)
