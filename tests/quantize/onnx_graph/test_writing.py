"""Integers in the file: golden numbers, torch's own rounding, and the runtime's kernels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from edgekd.backends._kernels import count_kernels
from edgekd.backends.onnxruntime import OnnxRuntime
from edgekd.core.errors import DataError, RecipeError, UnsupportedError
from edgekd.core.progress import Silent
from edgekd.core.target import load_target
from edgekd.numerics.affine import encode
from edgekd.quantize.onnx_graph.convert import (
    FloatGraph,
    QuantizedGraph,
    calibrate,
    kept_by,
    quantize,
)
from edgekd.quantize.onnx_graph.writing import weight_encoding
from tests.quantize.onnx_graph.graphs import model, node, read

ORT = load_target("x86-onnxruntime-int8")
OV = load_target("x86-openvino-int8")


def quantized(
    source: FloatGraph, feeds: Sequence[np.ndarray], target=ORT, kept=None, rule="minmax"
) -> QuantizedGraph:
    assert target.scheme is not None
    given = [{"x": x} for x in feeds]
    ranges = calibrate(source, kept or {}, given, rule, target.scheme, Silent())
    return quantize(source, ranges, kept or {}, target.scheme)


def values(data: bytes) -> dict[str, np.ndarray]:
    proto = onnx.load_from_string(data)
    return {i.name: numpy_helper.to_array(i) for i in proto.graph.initializer}


def evaluate(data: bytes, x: np.ndarray) -> np.ndarray:
    return ReferenceEvaluator(onnx.load_from_string(data)).run(None, {"x": x})[0]


def test_a_convolution_with_known_weights_becomes_known_integers(tmp_path: Path) -> None:
    # every weight is a multiple of 0.01 and the largest 127 of them; inputs lie in [0, 2.55]
    weight = np.float32([[[[1.27]], [[-0.5]]], [[[0.02]], [[-2.54]]]])
    nodes = [node("Conv", "x w b", "c", "conv"), node("Relu", "c", "y")]
    source = read(tmp_path, model(nodes, {"w": weight, "b": [0.25, -1]}, x=(1, 2, 1, 2)))
    x = np.float32([[[[0, 2.55]], [[1.0, 0.5]]]])
    found = quantized(source, [x])
    assert found.layers == ("conv",)
    got = values(found.model)
    assert got["x/scale"] == pytest.approx(0.01)
    assert got["x/zero_point"] == 0
    assert got["x/zero_point"].dtype == np.uint8
    assert got["conv/weight/scale"].tolist() == pytest.approx([0.01, 0.02])
    assert got["conv/weight/codes"].ravel().tolist() == [127, -50, 1, -127]
    assert got["conv/weight/codes"].dtype == np.int8
    assert got["conv/bias/codes"].tolist() == [2500, -5000]  # 0.25 / 1e-4, -1 / 2e-4
    assert got["conv/bias/codes"].dtype == np.int32
    # by hand: 1.27 * 2.55 - 0.5 * 0.5 + 0.25 = 3.2385, the largest output
    assert got["y/scale"] == pytest.approx(3.2385 / 255, rel=1e-6)
    assert not {"w", "b"} & got.keys()
    assert evaluate(found.model, x).ravel()[1] == pytest.approx(3.2385, abs=1e-5)


def test_the_file_computes_what_torchs_fake_quant_does(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(4, 3, 3, 3)), rng.normal(size=(5, 4))
    bias = rng.normal(size=4)
    weights = {k: v.astype(np.float32) for k, v in {"w": first, "b": bias, "v": second}.items()}
    nodes = [
        node("Conv", "x w b", "c", "conv", pads=[1, 1, 1, 1]),
        node("Relu", "c", "r"),
        node("GlobalAveragePool", "r", "p"),
        node("Flatten", "p", "f"),
        node("Gemm", "f v", "y", "fc", transB=1),
    ]
    source = read(tmp_path, model(nodes, weights, x=(1, 3, 6, 6)))
    feeds = [rng.normal(size=(1, 3, 6, 6)).astype(np.float32) for _ in range(4)]
    found = quantized(source, feeds)
    got = values(found.model)

    def grid(tensor: torch.Tensor, name: str) -> torch.Tensor:
        zero = int(got[f"{name}/zero_point"])
        return torch.fake_quantize_per_tensor_affine(
            tensor, float(got[f"{name}/scale"]), zero, 0, 255
        )

    def stored(weight: str, layer: str) -> torch.Tensor:
        scale = torch.from_numpy(got[f"{layer}/weight/scale"].copy())
        return torch.fake_quantize_per_channel_affine(
            torch.from_numpy(weights[weight]), scale, torch.zeros(len(scale)), 0, -127, 127
        )

    x = grid(torch.from_numpy(feeds[0]), "x")
    step = got["conv/weight/scale"] * got["x/scale"]
    rounded = torch.from_numpy((np.rint(weights["b"] / step) * step).astype(np.float32))
    y = torch.conv2d(x, stored("w", "conv"), rounded, padding=1)
    y = grid(grid(torch.relu(y), "r").mean((2, 3), keepdim=True), "p").flatten(1)
    expected = (y @ stored("v", "fc").T).numpy()
    np.testing.assert_allclose(evaluate(found.model, feeds[0]), expected, atol=1e-4)
    assert got["f/scale" if "f/scale" in got else "p/scale"] == got["p/scale"]


def test_every_layer_runs_in_an_int8_kernel(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.normal(size=(8, 2, 3, 3)).astype(np.float32),
        "d": rng.normal(size=(8, 1, 3, 3)).astype(np.float32),
        "v": rng.normal(size=(8, 5)).astype(np.float32),
        "b": rng.normal(size=8).astype(np.float32),
        "zero": np.float32(0),
        "six": np.float32(6),
    }
    nodes = [
        node("Conv", "x w b", "c1", "stem", pads=[1, 1, 1, 1]),
        node("Clip", "c1 zero six", "r1"),
        node("Conv", "r1 d", "c2", "depthwise", pads=[1, 1, 1, 1], group=8),
        node("Sigmoid", "c2", "g"),
        node("Mul", "c2 g", "m"),
        node("Add", "m r1", "s"),
        node("GlobalAveragePool", "s", "p"),
        node("Flatten", "p", "f"),
        node("Gemm", "f v", "y", "fc"),
    ]
    source = read(tmp_path, model(nodes, weights, x=(1, 2, 8, 8)))
    feeds = [3 * rng.normal(size=(1, 2, 8, 8)).astype(np.float32) for _ in range(8)]
    found = quantized(source, feeds)
    assert found.layers == ("stem", "depthwise", "fc")
    path = OnnxRuntime().build(found.model, ORT, tmp_path / "int8")
    layers = OnnxRuntime().layers(path, ORT, {"x": feeds[0]}, threads=1)
    kernels = count_kernels(layers)
    assert (kernels.int8, kernels.float, kernels.unfused) == (3, 0, 0)
    ran = [layer.op for layer in layers]
    assert "Clip" not in ran
    assert {"QLinearSigmoid", "QLinearMul", "QLinearAdd"} <= set(ran)


def test_a_float_bias_stays_as_it_is_where_the_target_wants_one(tmp_path: Path) -> None:
    weight, bias = np.ones((2, 2, 1, 1), np.float32), np.float32([0.3, -0.1])
    source = read(tmp_path, model([node("Conv", "x w b", "y", "c")], {"w": weight, "b": bias}))
    got = values(quantized(source, [np.ones((1, 2, 4, 4), np.float32)], OV).model)
    assert got["b"].tolist() == bias.tolist()
    assert "c/bias/codes" not in got


def test_an_output_on_a_grid_keeps_its_name_and_others_read_it_rounded(tmp_path: Path) -> None:
    # y is an output, and what a branch reads
    inner = helper.make_graph(
        [helper.make_node("Relu", ["y"], ["r"])],
        "then",
        [],
        [helper.make_tensor_value_info("r", TensorProto.FLOAT, None)],
    )
    nodes = [
        node("Conv", "x w", "y", "conv"),
        helper.make_node("If", ["f"], ["z"], then_branch=inner, else_branch=inner),
    ]
    weights = {"w": np.ones((2, 2, 1, 1), np.float32), "f": np.array(True)}
    source = read(tmp_path, model(nodes, weights, y=("y", "z")))
    x = np.random.default_rng(0).normal(size=(1, 2, 4, 4)).astype(np.float32)
    found = quantized(source, [x])
    y, z = ReferenceEvaluator(onnx.load_from_string(found.model)).run(None, {"x": x})
    steps = y / values(found.model)["y/scale"]
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-3)
    np.testing.assert_array_equal(z, np.maximum(y, 0))


def test_a_dead_channel_keeps_its_bias(tmp_path: Path) -> None:
    # a batch norm that switched a channel off leaves next to no weights and all of the bias
    weight = np.float32([[[[1.0]]], [[[1e-9]]]])
    data = model([node("Conv", "x w b", "y", "c")], {"w": weight, "b": [0.5, 0.7]}, x=(1, 1, 2, 2))
    source = read(tmp_path, data)
    x = np.linspace(0, 1, 4, dtype=np.float32).reshape(1, 1, 2, 2)
    y = evaluate(quantized(source, [x]).model, x)
    assert y[0, 1].ravel().tolist() == pytest.approx([0.7] * 4, abs=0.01)


@given(
    weight=st.floats(0, 10, width=32),
    bias=st.floats(-1e6, 1e6, width=32),
    input_scale=st.floats(1e-8, 10),
)
def test_every_bias_fits_into_32_bits(weight: float, bias: float, input_scale: float) -> None:
    given = np.full((1, 2), weight, np.float32)
    affine = weight_encoding(given, 0, np.array([bias], np.float32), input_scale)
    codes = np.abs(np.float64(bias) / (affine.scale * np.float32(input_scale)))
    assert codes[0] <= 2**31
    assert np.abs(encode(given, affine)).max() <= 127


def test_an_input_that_is_always_zero_leaves_its_layer_in_float(tmp_path: Path) -> None:
    weight = np.ones((2, 2, 1, 1), np.float32)
    nodes = [
        node("Conv", "x w", "a", "first"),
        node("Relu", "a", "r"),
        node("Conv", "r w", "y", "second"),
    ]
    source = read(tmp_path, model(nodes, {"w": weight}))
    found = quantized(source, [-np.ones((1, 2, 4, 4), np.float32)])
    assert found.layers == ("first",)
    assert found.skipped == {"second": "its input is zero on every calibration sample"}
    with pytest.raises(UnsupportedError, match="No layer of the model can be quantized"):
        quantized(source, [np.zeros((1, 2, 4, 4), np.float32)])


def test_a_constant_input_has_a_grid_that_holds_it(tmp_path: Path) -> None:
    source = read(tmp_path, model([node("Conv", "x w", "y")], {"w": np.ones((2, 2, 1, 1), "f")}))
    x = np.full((1, 2, 4, 4), 0.37, np.float32)
    assert evaluate(quantized(source, [x]).model, x) == pytest.approx(0.74, abs=1e-3)


def test_weights_that_are_not_finite_are_refused_by_name(tmp_path: Path) -> None:
    weight = np.float32([[[[np.nan]], [[1]]]])
    data = model([node("Conv", "x w", "y", "bad")], {"w": weight})
    with pytest.raises(DataError, match=r"weight of the layer 'bad' in .* is not finite"):
        read(tmp_path, data)


def test_the_user_decides_what_stays_in_float(tmp_path: Path) -> None:
    weights = {"w": np.ones((2, 2, 1, 1), np.float32), "d": np.ones((2, 1, 1, 1), np.float32)}
    nodes = [
        node("Conv", "x w", "a", "stem"),
        node("Conv", "a d", "b", "blocks.0", group=2),
        node("Conv", "b w", "y", "head"),
    ]
    source = read(tmp_path, model(nodes, weights))
    x = np.random.default_rng(0).normal(size=(1, 2, 4, 4)).astype(np.float32)
    for pattern, left in (
        ("stem", {"stem"}), ("first", {"stem"}), ("blocks.*", {"blocks.0"}),
        ("depthwise", {"blocks.0"}), ("re:^h", {"head"}), ("last", {"head"}),
    ):  # fmt: skip
        kept = kept_by(source, [pattern])
        found = quantized(source, [x], kept=kept)
        assert found.skipped == dict.fromkeys(left, f"kept in float by the pattern {pattern!r}")
        assert "w" in values(found.model) or pattern in ("blocks.*", "depthwise")
    with pytest.raises(RecipeError, match="--keep-float hed matches no layer") as e:
        kept_by(source, ["hed"])
    assert e.value.expected == "one of stem, blocks.0, head"


def test_the_same_samples_give_the_same_file(tmp_path: Path) -> None:
    source = read(tmp_path, model([node("Conv", "x w", "y")], {"w": np.ones((2, 2, 1, 1), "f")}))
    feeds = [np.random.default_rng(i).normal(size=(1, 2, 4, 4)).astype("f") for i in range(3)]
    assert quantized(source, feeds, rule="mse").model == quantized(source, feeds, rule="mse").model


def test_seven_bit_weights_leave_room_for_pairs_in_16_bits(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).normal(size=(4, 2, 3, 3)).astype(np.float32)
    source = read(tmp_path, model([node("Conv", "x w", "y", "c")], {"w": weight}))
    x = [{"x": np.ones((1, 2, 4, 4), np.float32)}]
    assert ORT.scheme is not None
    ranges = calibrate(source, {}, x, "minmax", ORT.scheme, Silent())
    made = quantize(source, ranges, {}, ORT.scheme, weight_bits=7)
    codes = np.abs(values(made.model)["c/weight/codes"].astype(np.int32))
    assert codes.max() == 63
    assert 2 * 255 * codes.max() < 2**15
