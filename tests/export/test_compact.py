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

from edgekd.core.types import PerBlock, PerChannel, PerTensor, Scheme
from edgekd.export.compact import _short_names, compact
from edgekd.export.onnx_file import quantized_model
from edgekd.numerics.encoding import stored_bytes
from edgekd.quantize.convert import QuantizationAware
from edgekd.quantize.settings import QuantizeSettings
from tests.export.test_storage import codebook, symmetric, with_offset

if TYPE_CHECKING:
    from edgekd.core.types import QuantizedStudent
    from edgekd.numerics.groups import Granularity
    from tests.export.test_storage import Encode

ROWS = PerChannel(axis=0)


def test_short_names_are_short_and_unique() -> None:
    names = list(islice(_short_names(), 3000))
    assert names[:2] == ["a", "b"]
    assert names[51:54] == ["Z", "aa", "ba"]
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
