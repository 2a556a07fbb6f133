"""What is rewritten before quantization computes the same, and shows layers and weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from edgekd.core.errors import UnsupportedError
from edgekd.quantize.onnx_graph.tidy import tidy
from edgekd.testing.onnx_models import convolution_net
from tests.quantize.onnx_graph.graphs import model, node, ops, read

X = np.linspace(-1, 1, 32, dtype=np.float32).reshape(1, 2, 4, 4)
CONV = np.float32([[[[2]], [[0]]], [[[1]], [[-1]]]])


def result(proto: onnx.ModelProto, x: np.ndarray = X) -> np.ndarray:
    return ReferenceEvaluator(proto).run(None, {"x": x})[0]


def test_a_batch_norm_goes_into_the_convolution_by_hand() -> None:
    proto = onnx.load_from_string(
        model(
            [node("Conv", "x w b", "c", "conv"), node("BatchNormalization", "c g s m v", "y")],
            {"w": CONV, "b": [1, 0], "g": [2, 1], "s": [0, 5], "m": [1, 2], "v": [3, 1]},
        )
    )
    proto.graph.node[1].attribute.append(helper.make_attribute("epsilon", 1.0))
    assert tidy(proto) == ["conv"]
    assert ops(proto) == ["Conv"]
    values = {i.name: onnx.numpy_helper.to_array(i) for i in proto.graph.initializer}
    weight, bias = (values[name] for name in proto.graph.node[0].input[1:])
    # gamma / sqrt(variance + epsilon) is 2 / 2 and 1 / sqrt(2)
    root = np.float32(1 / np.sqrt(2))
    assert weight.ravel().tolist() == [2, 0, root, -root]
    assert bias.tolist() == [0, pytest.approx(5 - 2 / np.sqrt(2))]  # beta + (b - mean) * factor


@settings(max_examples=20)
@given(seed=st.integers(0, 1000), with_bias=st.booleans())
def test_folding_a_batch_norm_changes_nothing(seed: int, with_bias: bool) -> None:
    rng = np.random.default_rng(seed)
    weights = {"w": rng.normal(size=(3, 2, 3, 3)), "v": rng.uniform(0.1, 2, 3)}
    weights |= {name: rng.normal(size=3) for name in ("gsmb" if with_bias else "gsm")}
    weights = {name: value.astype(np.float32) for name, value in weights.items()}
    conv = "x w b" if with_bias else "x w"
    proto = onnx.load_from_string(
        model([node("Conv", conv, "c"), node("BatchNormalization", "c g s m v", "y")], weights)
    )
    before = result(proto)
    assert len(tidy(proto)) == 1
    np.testing.assert_allclose(result(proto), before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "extra",
    [
        [node("Relu", "c", "z")],  # somebody else reads the convolution
        [node("Identity", "v", "z")],
    ],
)
def test_a_batch_norm_stays_where_it_cannot_go(extra: list[onnx.NodeProto]) -> None:
    weights: dict = {"w": CONV, "g": [1, 1], "s": [0, 0], "m": [0, 0]}
    computed = extra[0].op_type == "Identity"
    nodes = [node("Conv", "x w", "c"), node("BatchNormalization", "c g s m v", "y"), *extra]
    if computed:  # its variance is no stored number
        nodes = [node("ReduceMax", "x axes", "v", keepdims=0), *nodes]
        weights["axes"] = np.int64([0, 2, 3])
    else:
        weights["v"] = [1, 1]
    proto = onnx.load_from_string(model(nodes, weights, y=("y", "z")))
    assert tidy(proto) == []
    assert "BatchNormalization" in ops(proto)


def test_constants_and_layout_changes_of_them_become_weights() -> None:
    weight = helper.make_tensor("t", TensorProto.FLOAT, (2, 3), range(6))
    nodes = [
        node("Constant", "", "k", value=weight),
        node("Transpose", "k", "w", perm=[1, 0]),
        node("Constant", "", "axes", value_ints=[0]),
        node("Unsqueeze", "x axes", "u"),
        node("MatMul", "u w", "y"),
    ]
    proto = onnx.load_from_string(model(nodes, {}, x=(2, 3)))
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    before = result(proto, x)
    tidy(proto)
    assert ops(proto) == ["Unsqueeze", "MatMul"]
    assert {i.name for i in proto.graph.initializer} == {"w", "axes"}
    np.testing.assert_array_equal(result(proto, x), before)
    assert [n.name for n in proto.graph.node] == ["u", "y"]


def test_weights_that_a_caller_could_overwrite_become_constants() -> None:
    proto = onnx.load_from_string(model([node("Conv", "x w", "y")], {"w": CONV}))
    proto.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, CONV.shape))
    tidy(proto)
    assert [i.name for i in proto.graph.input] == ["x"]


def test_old_opsets_are_brought_up_without_changing_what_is_computed(tmp_path: Path) -> None:
    # opset 9 scales from the corner; newer ones from the middle of a pixel unless told otherwise
    nodes = [node("Conv", "x w", "c", "conv"), node("Upsample", "c s", "y", mode="linear")]
    data = model(nodes, {"w": CONV, "s": [1, 1, 2, 2]}, opset=9)
    found = read(tmp_path, data)
    assert (found.opset_was, found.opset) == (9, 13)
    y = result(found.model)
    assert y[0, 0, 0, :4].tolist() == pytest.approx(
        [2 * X[0, 0, 0, 0], X[0, 0, 0, :2].sum(), 2 * X[0, 0, 0, 1], X[0, 0, 0, 1:3].sum()]
    )


def test_a_quantized_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="is quantized already") as e:
        read(tmp_path, convolution_net(quantized=True))
    assert "nodes of DequantizeLinear, QuantizeLinear" in e.value.message


def test_an_opset_that_no_converter_knows_is_refused(tmp_path: Path) -> None:
    # nothing leads from an operator that opset 9 does not know to opset 13
    nodes = [
        node("Conv", "x w", "c"),
        node("Upsample", "c s", "y", mode="cubic", height_scale=2.0),
    ]
    with pytest.raises(UnsupportedError, match="cannot be brought from opset 6 to 13") as e:
        read(tmp_path, model(nodes, {"w": CONV, "s": [1, 1, 2, 2]}, opset=6))
    assert e.value.got
    assert e.value.todo == "export the model again with opset 13 or newer"
