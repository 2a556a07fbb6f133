from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekd.backends._tensorrt.rules import check_codes
from edgekd.core.errors import UnsupportedError
from edgekd.core.target import load_target
from edgekd.testing.onnx_models import convolution_net

TARGET = load_target("rtx-tensorrt-int8")
PATH = Path("student.onnx")
S8 = {"codes": "int8", "integer_bias": False}


def checked(model: bytes | onnx.ModelProto) -> None:
    proto = onnx.load_from_string(model) if isinstance(model, bytes) else model
    check_codes(proto, PATH, TARGET, "TensorRT")


def refused(model: bytes | onnx.ModelProto) -> UnsupportedError:
    with pytest.raises(UnsupportedError) as caught:
        checked(model)
    assert caught.value.exit_code == 4
    assert "int8 activations and a float32 bias" in caught.value.todo
    return caught.value


def changed(name: str, value: np.ndarray) -> onnx.ModelProto:
    """The int8 model with another initializer."""
    model = onnx.load_from_string(convolution_net(quantized=True, **S8))
    (old,) = [i for i in model.graph.initializer if i.name == name]
    old.CopyFrom(numpy_helper.from_array(value, name))
    return model


def graph_of(nodes: list[Any], constants: list[Any], inner: bool = False) -> onnx.ModelProto:
    if inner:  # the same nodes in a branch
        made = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
        branch = helper.make_graph(nodes, "branch", [], [made])
        nodes = [helper.make_node("If", ["c"], ["z"], then_branch=branch, else_branch=branch)]
    return helper.make_model(helper.make_graph(nodes, "tiny", [], [], constants))


@pytest.mark.parametrize("model", [{"quantized": False}, {"quantized": True, **S8}], ids=str)
def test_float_and_symmetric_int8_pass(model: dict[str, Any]) -> None:
    checked(convolution_net(**model))


def test_uint8_is_refused_even_where_its_zero_point_is_0() -> None:
    error = refused(convolution_net(quantized=True, codes="uint8", integer_bias=False))
    assert "QuantizeLinear 'input/codes' of student.onnx" in error.failed
    assert error.got == "uint8 codes"
    model = changed("relu.zero_point", np.array(0, np.uint8))
    error = refused(model)
    assert ("'relu/codes'" in error.failed, error.got) == (True, "uint8 codes")


def test_an_int32_bias_is_refused() -> None:
    error = refused(convolution_net(quantized=True, codes="int8", integer_bias=True))
    assert "DequantizeLinear 'conv.bias_code/real'" in error.failed
    assert error.got == "int32 codes"


def test_a_zero_point_other_than_0_is_refused() -> None:
    error = refused(changed("input.zero_point", np.array(-3, np.int8)))
    assert ("'input/codes'" in error.failed, error.got) == (True, "the zero point -3")
    many = np.zeros(8, np.int8)
    many[5] = 7
    error = refused(changed("conv.code.zero_point", many))
    assert ("'conv.code/real'" in error.failed, error.got) == (True, "the zero point 7")


@pytest.mark.parametrize("inner", [False, True])
def test_a_node_without_a_zero_point_is_uint8_as_the_standard_says(inner: bool) -> None:
    nodes = [helper.make_node("QuantizeLinear", ["x", "s"], ["y"])]
    error = refused(graph_of(nodes, [], inner))
    assert "QuantizeLinear 'y'" in error.failed
    assert error.got == "uint8 codes"


def test_the_type_that_a_node_names_itself_counts() -> None:
    for code, fine in ((TensorProto.INT8, True), (TensorProto.INT16, False)):
        quantize = helper.make_node("QuantizeLinear", ["x", "s"], ["q"], output_dtype=code)
        decode = helper.make_node("DequantizeLinear", ["q", "s"], ["y"])
        model = graph_of([quantize, decode], [])
        if fine:
            checked(model)
        else:
            assert refused(model).got == "int16 codes"


def test_a_computed_zero_point_is_refused() -> None:
    zero = helper.make_node("Identity", ["z0"], ["z"])
    decode = helper.make_node("DequantizeLinear", ["w", "s", "z"], ["y"])
    constants = [numpy_helper.from_array(np.zeros(2, np.int8), name) for name in ("w", "z0")]
    assert refused(graph_of([zero, decode], constants)).got == (
        "a zero point that is computed, 'z'"
    )


def test_a_constant_node_is_a_constant() -> None:
    value = numpy_helper.from_array(np.array(9, np.int8))
    zero = helper.make_node("Constant", [], ["z"], value=value)
    quantize = helper.make_node("QuantizeLinear", ["x", "s", "z"], ["y"])
    assert refused(graph_of([zero, quantize], [])).got == "the zero point 9"


@pytest.mark.parametrize("op", ["QLinearConv", "MatMulInteger", "QLinearAdd", "QGemm"])
def test_operators_on_codes_are_refused(op: str) -> None:
    error = refused(graph_of([helper.make_node(op, ["x"], ["y"], name="first")], []))
    assert error.failed == f"TensorRT has no {op}, which the node 'first' of student.onnx is."
