from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from torch import nn

from edgekd.backends._executorch.torch_module import OnnxModule
from edgekd.core.errors import UnsupportedError
from edgekd.core.types import Scheme
from edgekd.export.onnx_file import float_model, quantized_model
from edgekd.testing.onnx_models import CLASSES, INPUT, INPUT_SHAPE, GraphBuilder, convolution_net
from tests.quantize import nets
from tests.quantize.test_convert import aware

PATH = Path("net.onnx")
SCHEMES = [
    Scheme(activations="uint8", bias="float32"),
    Scheme(activations="uint8", bias="float32", weight_granularity="per_tensor"),
]


def module(model: bytes) -> OnnxModule:
    return OnnxModule(onnx.load_from_string(model), PATH, "a phone")


def difference(model: bytes, shape: tuple[int, ...]) -> tuple[float, float]:
    """Mean distance to the standard's evaluator, and the spread of its outputs."""
    inputs = np.random.default_rng(3).standard_normal(shape).astype(np.float32)
    expected = ReferenceEvaluator(onnx.load_from_string(model)).run(None, {INPUT: inputs})[0]
    got = module(model)(torch.from_numpy(inputs))[0].numpy()
    return float(np.abs(got - expected).mean()), float(expected.std())


@pytest.mark.parametrize("name", nets.NETS)
def test_a_float_student_computes_the_same(name: str) -> None:
    model = float_model(nets.trained_looking(name), nets.INPUT_SHAPE, batch_size=2, opset=20)
    apart, spread = difference(model, (2, *nets.INPUT_SHAPE))
    assert apart < 1e-6 < spread


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
@pytest.mark.parametrize("name", nets.NETS)
def test_a_quantized_student_computes_the_same(name: str, scheme: Scheme) -> None:
    student = aware(nets.trained_looking(name)).freeze()
    model = quantized_model(student, scheme, nets.INPUT_SHAPE, batch_size=2)
    apart, spread = difference(model, (2, *nets.INPUT_SHAPE))
    # the input of a layer with a float result gets a grid of its own, as fine as the file's
    assert apart < 0.02 * spread


@pytest.mark.parametrize("codes", ["uint8", "int8"])
def test_codes_stay_codes(codes: str) -> None:
    net = module(convolution_net(quantized=True, codes=codes))
    exported = torch.export.export(net, net.example(), strict=False)
    ops = [str(n.target) for n in exported.graph.nodes if n.op == "call_function"]
    kinds = [op for op in ops if op.startswith("quantized_decomposed.")]
    assert sum("dequantize_per_channel" in op for op in kinds) == 2
    weights = [b for name, b in net.named_buffers() if b.dtype == torch.int8]
    assert sorted(w.ndim for w in weights) == [2, 4]
    quantize = [n for n in exported.graph.nodes if "quantize_per_tensor.default" in str(n.target)]
    assert quantize[0].args[2] == 0
    assert {n.args[-1] for n in quantize} == {torch.int8}


def test_weights_beside_a_float_input_are_decoded_when_it_is_built() -> None:
    net = module(convolution_net(quantized=True, conv_input_grid=False))
    assert [b.ndim for b in net.buffers() if b.dtype == torch.int8] == [2]


def test_layers_are_found_by_their_weights() -> None:
    net = module(convolution_net(quantized=False))
    named = {net.layer(name) for name, _ in net.named_buffers()}
    assert named == {"conv", "fc"}


def one(op: str, **attributes: object) -> bytes:
    b = GraphBuilder()
    x = b.node(op, [INPUT], "x", **attributes)
    x = b.node("GlobalAveragePool", [x], "pool")
    return b.model(b.node("Flatten", [x], "flat"), output_shape=("a", "b"))


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (one("Det"), "the Det 'x'"),
        (convolution_net(quantized=True, bits=4), "int4 codes"),
        (one("Transpose"), "none"),
        (one("MaxPool", kernel_shape=[2, 2], pads=[0, 0, 1, 1]), r"\[0, 0\] and \[1, 1\]"),
        (one("AveragePool", kernel_shape=[2, 2], auto_pad="SAME_UPPER"), "SAME_UPPER"),
        (convolution_net(quantized=False, batch="n"), "leaves an axis open"),
    ],
    ids=["operator", "int4", "order", "padding", "auto_pad", "open"],
)
def test_what_is_not_known_is_refused_by_name(model: bytes, said: str) -> None:
    with pytest.raises(UnsupportedError, match=said) as caught:
        module(model)
    assert caught.value.todo


def test_other_zero_points_of_weights_are_refused() -> None:
    model = onnx.load_from_string(convolution_net(quantized=True))
    for stored in model.graph.initializer:
        if stored.name == "conv.code.zero_point":
            threes = np.full(8, 3, np.int8)
            stored.CopyFrom(onnx.numpy_helper.from_array(threes, stored.name))
    with pytest.raises(UnsupportedError, match="around a zero point of 0"):
        OnnxModule(model, PATH, "a phone")


def test_pools_and_layouts_compute_the_same() -> None:
    b = GraphBuilder()
    x = b.node("MaxPool", [INPUT], "max", kernel_shape=[2, 2], strides=[2, 2])
    x = b.node("AveragePool", [x], "mean", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    x = b.node("Transpose", [x], "turned", perm=[0, 2, 3, 1])
    x = b.node("Concat", [x, x], "twice", axis=3)
    x = b.node("Softmax", [b.node("Sigmoid", [x], "soft")], "more", axis=1)
    model = b.model(b.node("Flatten", [x], "flat"), output_shape=("a", "b"))
    assert difference(model, INPUT_SHAPE)[0] < 1e-6


def test_a_grid_behind_a_layout_change_is_put_in_front_too() -> None:
    b = GraphBuilder()
    x = b.node("GlobalAveragePool", [INPUT], "pool")
    x = b.grid(b.node("Flatten", [x], "flat"), scale=1 / 64, zero_point=128)
    x = b.layer("Gemm", x, (CLASSES, 3), "fc", input_scale=1 / 64, transB=1)
    net = module(b.model(x))
    graph = torch.export.export(net, net.example(), strict=False).graph
    mean = next(n for n in graph.nodes if "mean" in str(n.target))
    assert [str(n.target) for n in mean.users] == [
        "quantized_decomposed.quantize_per_tensor.default"
    ]


def test_the_module_is_a_plain_one() -> None:
    net = module(convolution_net(quantized=False))
    assert isinstance(net, nn.Module)
    assert [tuple(x.shape) for x in net.example()] == [INPUT_SHAPE]


def test_an_integer_bias_whose_scale_is_computed_is_refused_by_name() -> None:
    scheme = Scheme(activations="uint8", bias="int32", weight_granularity="per_tensor")
    student = aware(nets.trained_looking("dense")).freeze()
    model = quantized_model(student, scheme, nets.INPUT_SHAPE, batch_size=1)
    with pytest.raises(UnsupportedError, match="cannot bring the DequantizeLinear"):
        module(model)(torch.zeros(1, *nets.INPUT_SHAPE))
