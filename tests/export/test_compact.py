from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from edgekd.core.target import load_target
from edgekd.core.types import PerBlock, PerChannel, PerTensor, Scheme
from edgekd.export import storage
from edgekd.export.compact import _short_names, compact, narrow_biases
from edgekd.export.onnx_file import quantized_model
from edgekd.numerics.encoding import stored_bytes
from edgekd.quantize.convert import QuantizationAware
from edgekd.quantize.settings import QuantizeSettings
from edgekd.students._build import build_seeded
from edgekd.students._contract import NetSpec
from edgekd.students.convnet import ConvNet
from tests.export.test_storage import codebook, symmetric, with_offset

if TYPE_CHECKING:
    from edgekd.core.types import QuantizedStudent
    from edgekd.numerics.groups import Granularity
    from tests.export.test_storage import Encode

ROWS = PerChannel(axis=0)


def test_short_names_are_short_and_unique() -> None:
    names = list(islice(_short_names(), 5000))
    assert names[:2] == ["a", "b"]
    assert names[51:53] == ["Z", "0"]
    assert names[61:64] == ["9", "aa", "ba"]
    assert len(set(names)) == len(names)
    assert max(map(len, names)) == 3


def test_what_no_runtime_needs_is_gone_and_the_rest_computes_the_same() -> None:
    from onnx.reference import ReferenceEvaluator

    weight = np.random.default_rng(0).normal(0, 1, (2, 3, 3, 3)).astype(np.float32)
    node = helper.make_node(
        "Conv",
        ["input", "layer.weight"],
        ["a"],
        name="layer",
        dilations=[1, 1],
        strides=[1, 2],
        pads=[0, 0, 0, 0],
        group=1,
        auto_pad="NOTSET",
        doc_string="File /home/somebody/net.py",
    )
    graph = helper.make_graph(
        [node, helper.make_node("Relu", ["a"], ["logits"], name="node_relu")],
        "net",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, (1, 3, 8, 8))],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, (1, 2, 6, 3))],
        [numpy_helper.from_array(weight, "layer.weight")],
        doc_string="made by somebody",
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    inputs = {"input": np.random.default_rng(1).normal(0, 1, (1, 3, 8, 8)).astype(np.float32)}
    before = ReferenceEvaluator(proto).run(None, inputs)[0]
    compact(proto, keep_node=lambda n: n.name == "layer", keep_tensor=lambda _: False)
    onnx.checker.check_model(proto, full_check=True)
    assert np.array_equal(ReferenceEvaluator(proto).run(None, inputs)[0], before)
    conv, relu = proto.graph.node
    assert [a.name for a in conv.attribute] == ["strides"]
    assert (conv.name, relu.name) == ("layer", "")
    assert list(conv.output) == list(relu.input) == ["b"]
    assert b"somebody" not in proto.SerializeToString()


def test_biases_that_fit_are_stored_in_16_bits_and_stay_the_same() -> None:
    from onnx.reference import ReferenceEvaluator

    biases = {
        "a": np.arange(-50, 50, dtype=np.int32) * 655,
        "b": np.full(100, 1 << 15, np.int32),  # one too many for int16
        "c": np.full(30, -(1 << 15), np.int32),
    }
    graph = helper.make_graph(
        [helper.make_node("DequantizeLinear", [n, "step"], [f"{n}/real"]) for n in biases],
        "net",
        [],
        [
            helper.make_tensor_value_info(f"{n}/real", TensorProto.FLOAT, codes.shape)
            for n, codes in biases.items()
        ],
        [numpy_helper.from_array(codes, name) for name, codes in biases.items()]
        + [numpy_helper.from_array(np.float32(0.5), "step")],
    )
    narrow_biases(graph)
    kept = {i.name: i.data_type for i in graph.initializer}
    assert kept["b"] == TensorProto.INT32
    assert not {"a", "c"} & kept.keys()
    assert TensorProto.INT16 in kept.values()
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    onnx.checker.check_model(proto, full_check=True)
    for found, codes in zip(ReferenceEvaluator(proto).run(None, {}), biases.values(), strict=True):
        assert np.array_equal(found, codes * np.float32(0.5))


@cache
def perceptron(activation_bits: int | str) -> QuantizedStudent:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(800, 130), nn.ReLU(), nn.Linear(130, 10)).eval()
    settings = QuantizeSettings(activation_bits=activation_bits)  # type: ignore[arg-type]
    inputs = np.random.default_rng(0).normal(0, 1, (16, 800)).astype(np.float32)
    return QuantizationAware(net, settings, SCHEME, inputs, learned=False, seed=0).freeze()


SCHEME = Scheme(activations="uint8", bias="int32")


@pytest.mark.parametrize(
    ("encode", "bits", "shared", "activation_bits"),
    [
        *((symmetric, bits, ROWS, 8) for bits in (1, 2, 3, 4, 8)),
        (symmetric, 3, PerTensor(), 8),
        (with_offset, 2, PerBlock(size=256), "float"),
        (with_offset, 4, PerBlock(size=64), "float"),
        (codebook, 2, PerBlock(size=256), 8),
    ],
)
def test_the_file_is_as_small_as_its_bits_say(
    encode: Encode, bits: int, shared: Granularity, activation_bits: int | str
) -> None:
    student = perceptron(activation_bits)
    layers = {path: student.graph.get_submodule(path) for path in student.weights}
    weights = {p: layer.weight.detach().numpy() for p, layer in layers.items()}  # type: ignore[union-attr, operator]
    student = replace(student, weights={p: encode(w, bits, shared) for p, w in weights.items()})
    stored = sum(stored_bytes(w.size, student.weights[p]) for p, w in weights.items())
    assert sum(w.size for w in weights.values()) > 100_000
    size = len(quantized_model(student, SCHEME, (800,), batch_size=1))
    assert stored < size < 1.03 * stored + 2048


IMAGE = (3, 32, 32)


def smallest(scheme: Scheme) -> QuantizedStudent:
    """The paper's smallest student at 2 bits: six layers, of which one has most weights."""
    family = ConvNet(stages=((25, 10), (10, 5)), kernel=5, hidden=(300,))
    settings = QuantizeSettings(weights={"name": "minmax", "bits": 2}, restore_statistics=False)  # type: ignore[arg-type]
    inputs = np.random.default_rng(0).normal(0, 1, (4, *IMAGE)).astype(np.float32)
    net = build_seeded(family, NetSpec(IMAGE, 10), 0).eval()
    return QuantizationAware(net, settings, scheme, inputs, learned=False, seed=0).freeze()


@pytest.mark.parametrize("name", ["x86-onnxruntime-int8", "x86-openvino-int8"])
def test_a_small_convolution_net_takes_little_beside_its_numbers(name: str) -> None:
    scheme = load_target(name).scheme
    assert scheme is not None
    student = smallest(scheme)
    layers = {path: student.graph.get_submodule(path) for path in student.weights}
    weights = sum(stored_bytes(x.weight.numel(), student.weights[p]) for p, x in layers.items())  # type: ignore[union-attr, operator]
    biases = sum(4 * x.bias.numel() for x in layers.values())  # type: ignore[union-attr, operator]
    model = quantized_model(student, scheme, IMAGE, batch_size=1)
    assert len(model) <= 1.03 * (weights + biases) + 2048
    names = {n.name for n in onnx.load_from_string(model).graph.node}
    assert names >= set(layers)


def test_small_layers_are_unpacked_together_and_large_ones_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from onnx.reference import ReferenceEvaluator

    student = perceptron(8)
    layers = {path: student.graph.get_submodule(path) for path in student.weights}
    few = {p: symmetric(x.weight.detach().numpy(), 2, ROWS) for p, x in layers.items()}  # type: ignore[union-attr, operator]
    inputs = {"input": np.random.default_rng(1).normal(0, 1, (1, 800)).astype(np.float32)}
    found = []
    for limit, unpacked in ((1 << 17, 1), (100_000, 2)):  # one layer has 104,000 weights
        monkeypatch.setattr(storage, "_SMALL_LAYER", limit)
        model = quantized_model(replace(student, weights=few), SCHEME, (800,), batch_size=1)
        proto = onnx.load_from_string(model)
        assert sum(n.op_type == "Gather" for n in proto.graph.node) == unpacked
        found.append(ReferenceEvaluator(proto).run(None, inputs)[0])
    assert np.array_equal(found[0], found[1])


def test_shapes_are_written_in_few_bytes() -> None:
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["input", "shape"], ["logits"], allowzero=1)],
        "net",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, (4, 6))],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, (2, 12))],
        [numpy_helper.from_array(np.array([2, 12]), "shape")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    compact(proto, keep_node=lambda _: False, keep_tensor=lambda _: False)
    (shape,) = proto.graph.initializer
    assert (list(shape.int64_data), shape.HasField("raw_data")) == ([2, 12], False)
    assert numpy_helper.to_array(shape).dtype == np.int64
    assert not proto.graph.node[0].attribute  # there is no zero to allow
    onnx.checker.check_model(proto, full_check=True)
