from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekd.backends._onnx.constants import constants, real
from edgekd.backends._onnx.weights import Weights
from edgekd.testing.onnx_models import convolution_net


def decoded(
    codes: np.ndarray, scale: np.ndarray, zero: np.ndarray | None, **attributes: int
) -> np.ndarray | Weights:
    names = ["codes", "scale"] + (["zero"] if zero is not None else [])
    stored = [numpy_helper.from_array(codes, "codes"), numpy_helper.from_array(scale, "scale")]
    if zero is not None:
        stored.append(numpy_helper.from_array(zero, "zero"))
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, None)
    node = helper.make_node("DequantizeLinear", names, ["out"], **attributes)
    graph = helper.make_graph([node], "one", [], [out], stored)
    opset = helper.make_opsetid("", 21)
    return constants(helper.make_model(graph, opset_imports=[opset]))["out"]


SCALES = np.array([0.5, 0.25], np.float32)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_codes_around_any_zero_point_come_around_0(dtype: type) -> None:
    codes, zero = np.array([[60, 2], [10, 3]], dtype), np.array([10, 3], dtype)
    found = decoded(codes, SCALES, zero, axis=0)
    assert isinstance(found, Weights)
    assert found.codes.tolist() == [[50, -8], [7, 0]]
    assert found.codes.dtype == np.int8
    assert real(found).tolist() == [[25.0, -4.0], [1.75, 0.0]]


@pytest.mark.parametrize(
    ("codes", "zero"),
    [(np.array([-128, 0], np.int8), None), (np.array([255, 0], np.uint8), np.uint8(0))],
    ids=["lowest", "unsigned"],
)
def test_codes_that_int8_kernels_do_not_take_are_decoded(
    codes: np.ndarray, zero: np.ndarray | None
) -> None:
    found = decoded(codes, np.float32(0.5), zero if zero is None else np.array(zero))
    assert not isinstance(found, Weights)
    assert found.tolist() == (codes.astype(float) * 0.5).tolist()


def test_a_node_may_make_several_constants() -> None:
    stored = [
        numpy_helper.from_array(np.arange(5, dtype=np.int8), "all"),
        numpy_helper.from_array(np.array([2, 3]), "counts"),
    ]
    made = [helper.make_tensor_value_info(x, TensorProto.INT8, None) for x in ("few", "rest")]
    split = helper.make_node("Split", ["all", "counts"], ["few", "rest"])
    graph = helper.make_graph([split], "two", [], made, stored)
    found = constants(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]))
    assert real(found["few"]).tolist() == [0, 1]
    assert real(found["rest"]).tolist() == [2, 3, 4]


def test_blocks_are_decoded() -> None:
    scale = np.array([[0.5, 0.25]], np.float32)
    found = decoded(np.full((1, 4), 4, np.int8), scale, None, axis=1, block_size=2)
    assert not isinstance(found, Weights)
    assert found.tolist() == [[2.0, 2.0, 1.0, 1.0]]


def test_a_bias_stays_int32() -> None:
    found = decoded(np.array([1 << 20, -3], np.int32), SCALES, None, axis=0)
    assert isinstance(found, Weights)
    assert (found.codes.dtype, found.codes.tolist()) == (np.int32, [1 << 20, -3])


def test_four_bits_become_eight() -> None:
    found = constants(onnx.load_from_string(convolution_net(quantized=True, bits=4)))
    weights = found["conv.code/real"]
    assert isinstance(weights, Weights)
    assert weights.codes.dtype == np.int8
    assert 0 < np.abs(weights.codes).max() <= 7


def test_what_is_computed_from_an_input_is_no_constant() -> None:
    found = constants(onnx.load_from_string(convolution_net(quantized=True)))
    assert "conv" not in found
    assert "input/codes" not in found
