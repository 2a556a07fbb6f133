from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from edgekd.core.errors import UnsupportedError
from edgekd.core.types import Affine, PerBlock, PerChannel, QuantizedStudent, Scheme
from edgekd.export.onnx_file import IR_VERSION, float_model, quantized_model, with_taps
from edgekd.numerics.affine import encode
from edgekd.numerics.packing import unpack
from edgekd.quantize.convert import simulate
from tests.export.test_storage import binary, codebook, symmetric, with_offset
from tests.quantize.nets import INPUT_SHAPE, NETS, trained_looking
from tests.quantize.test_convert import aware, samples

INT32, FLOAT32 = (Scheme(activations="uint8", bias=bias) for bias in ("int32", "float32"))


def evaluate(model: bytes, inputs: np.ndarray) -> np.ndarray:
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(onnx.load_from_string(model))
    out: np.ndarray = evaluator.run(None, {"input": inputs})[0]
    return out


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("scheme", [INT32, FLOAT32], ids=["int32", "float32"])
def test_the_file_computes_the_fake_quant_student(name: str, scheme: Scheme) -> None:
    student = aware(trained_looking(name)).freeze()
    model = quantized_model(student, scheme, INPUT_SHAPE, batch_size=8)
    inputs = samples(8, seed=5)
    with torch.no_grad():
        expected = simulate(student)(torch.from_numpy(inputs)).numpy()
    difference = np.abs(evaluate(model, inputs) - expected)
    # an int32 bias is rounded to half of input_scale * weight_scale, about 1e-4 of a logit here;
    # now and then that moves a value over a rounding edge, by one step of one activation
    assert difference.mean() < 0.01 * expected.std()


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("name", ["mse", "lsq"])
def test_every_quantizer_reaches_the_file(name: str, bits: int) -> None:
    weights = {"name": name, "bits": bits}
    work = aware(trained_looking("depthwise"), learned=True, weights=weights)
    optimizer = torch.optim.SGD(work.module.parameters(), lr=1e-3)
    inputs = torch.from_numpy(samples(8, seed=5))
    for _ in range(2):
        optimizer.zero_grad()
        work.module.train()(inputs).square().mean().backward()
        optimizer.step()
    student = work.freeze()
    model = quantized_model(student, INT32, INPUT_SHAPE, batch_size=8)
    largest = (1 << (bits - 1)) - 1
    for initializer in onnx.load_from_string(model).graph.initializer:
        if initializer.name.endswith(".codes"):
            codes = onnx.numpy_helper.to_array(initializer)
            if bits < 8:
                codes = unpack(codes[:, :, 0], bits, codes.size * 2)
                codes = np.where(codes > largest, codes - (1 << bits), codes)
            assert largest // 2 < np.abs(codes.astype(int)).max() <= largest
    with torch.no_grad():
        expected = simulate(student)(inputs).numpy()
    difference = np.abs(evaluate(model, inputs.numpy()) - expected)
    assert difference.mean() < 0.01 * expected.std()  # as above


def assert_same_in_runtime(backend: Any, target: Any, model: bytes, student: Any) -> None:
    inputs = samples(8, seed=5)
    with tempfile.TemporaryDirectory() as folder:
        path = backend.build(model, target, Path(folder) / "student")
        with backend.open(path, target, threads=1) as session:
            (found,) = session.run({"input": inputs}).values()
    with torch.no_grad():
        expected = simulate(student)(torch.from_numpy(inputs)).numpy()
    assert np.abs(found - expected).mean() < 0.02 * expected.std()


@pytest.mark.parametrize("name", NETS)
def test_openvino_never_overflows_on_weights_held_to_seven_bits(name: str) -> None:
    from edgekd.backends.openvino import OpenVino
    from edgekd.core.target import load_target

    target = load_target("x86-openvino-int8").on([])
    assert target.scheme is not None
    weights = {"name": "minmax", "bits": target.scheme.weight_bits}
    student = aware(trained_looking(name), weights=weights, restore_statistics=False).freeze()
    model = quantized_model(student, target.scheme, INPUT_SHAPE, batch_size=8)
    assert_same_in_runtime(OpenVino(), target, model, student)


@pytest.mark.parametrize("name", NETS)
def test_the_shipped_target_never_overflows(name: str) -> None:
    """Full-range integers on both sides: without VNNI the plain int8 product overflows."""
    from edgekd.backends.onnxruntime import OnnxRuntime
    from edgekd.core.target import load_target

    target = load_target("x86-onnxruntime-int8")
    assert target.scheme is not None
    student = aware(trained_looking(name)).freeze()
    model = quantized_model(student, target.scheme, INPUT_SHAPE, batch_size=8)
    graph = onnx.load_from_string(model).graph
    stored = {i.name for i in graph.initializer}
    zero_points = [
        n.input[2]
        for n in graph.node
        if n.op_type == "DequantizeLinear" and n.input[0] in stored and len(n.input) > 2
    ]
    assert len(set(zero_points)) == len(zero_points)
    assert_same_in_runtime(OnnxRuntime(), target, model, student)


@pytest.mark.parametrize("activation_bits", [8, "float"])
def test_one_file_holds_weights_of_any_encoding(activation_bits: int | str) -> None:
    student = aware(trained_looking("residual"), activation_bits=activation_bits).freeze()
    weights = {
        "stem": symmetric(weight_of(student, "stem"), 3, PerChannel(axis=0)),
        "conv1": with_offset(weight_of(student, "conv1"), 2, PerBlock(size=100)),
        "conv2": codebook(weight_of(student, "conv2"), 4, PerBlock(size=64)),
        "shortcut": binary(weight_of(student, "shortcut"), 1, PerChannel(axis=0)),
        "head": codebook(weight_of(student, "head"), 2, PerChannel(axis=1)),
    }
    student = replace(student, weights=weights)
    model = quantized_model(student, INT32, INPUT_SHAPE, batch_size=2)
    inputs = samples(2, seed=5)
    with torch.no_grad():
        expected = simulate(student)(torch.from_numpy(inputs)).numpy()
    difference = np.abs(evaluate(model, inputs) - expected)
    assert difference.mean() < (1e-5 if activation_bits == "float" else 0.01) * expected.std()


@pytest.mark.parametrize("activation_bits", [8, "float"])
def test_layers_of_one_shape_keep_their_own_weights(activation_bits: int | str) -> None:
    net = trained_looking("depthwise")
    student = aware(net, activation_bits=activation_bits, weights="bucketed").freeze()
    first, second = (weight_of(student, path) for path in ("body.0", "body.3"))
    assert first.shape == second.shape
    model = quantized_model(student, INT32, INPUT_SHAPE, batch_size=2)
    inputs = samples(2, seed=5)
    with torch.no_grad():
        expected = simulate(student)(torch.from_numpy(inputs)).numpy()
    difference = np.abs(evaluate(model, inputs) - expected)
    assert difference.mean() < (1e-5 if activation_bits == "float" else 0.01) * expected.std()


def weight_of(student: QuantizedStudent, path: str) -> np.ndarray:
    weight: np.ndarray = student.graph.get_submodule(path).weight.detach().numpy()  # type: ignore[union-attr, operator]
    return weight


def test_activations_that_no_file_holds_are_refused() -> None:
    student = aware(trained_looking("dense"), activation_bits=4).freeze()
    with pytest.raises(UnsupportedError, match="has 4 bits, which no ONNX file holds"):
        quantized_model(student, INT32, INPUT_SHAPE, batch_size=1)


def test_weights_are_true_int8_initializers() -> None:
    student = aware(trained_looking("residual")).freeze()
    proto = onnx.load_from_string(quantized_model(student, INT32, INPUT_SHAPE, batch_size=1))
    stored = {i.name: onnx.numpy_helper.to_array(i) for i in proto.graph.initializer}
    for path, affine in student.weights.items():
        assert isinstance(affine, Affine)
        codes = stored[f"{path}.codes"]
        assert codes.dtype == np.int8
        weight = student.graph.get_submodule(path).weight.detach().numpy()  # type: ignore[union-attr, operator]
        assert np.array_equal(codes, encode(weight, affine))
    float_bytes = sum(a.nbytes for a in stored.values() if a.dtype == np.float32 and a.ndim > 1)
    assert float_bytes == 0


@pytest.mark.parametrize(("scheme", "dtype"), [(INT32, np.int32), (FLOAT32, np.float32)])
def test_the_bias_is_as_the_scheme_wants_it(scheme: Scheme, dtype: type) -> None:
    student = aware(trained_looking("residual")).freeze()
    proto = onnx.load_from_string(quantized_model(student, scheme, INPUT_SHAPE, batch_size=1))
    (conv,) = [n for n in proto.graph.node if n.name == "stem" and n.op_type == "Conv"]
    stored = {i.name: i for i in proto.graph.initializer}
    makers = {o: n for n in proto.graph.node for o in n.output}
    bias = conv.input[2]
    source = makers[bias].input[0] if bias in makers else bias
    assert onnx.numpy_helper.to_array(stored[source]).dtype == dtype


def test_names_lead_back_to_the_student() -> None:
    student = aware(trained_looking("residual")).freeze()
    model = quantized_model(student, INT32, INPUT_SHAPE, batch_size=1)
    proto = onnx.load_from_string(model)
    names = {n.name for n in proto.graph.node}
    assert {"stem", "conv1", "conv2", "shortcut", "head"} <= names
    assert {"x/q", "mean/q"} <= names
    _, taps = with_taps(model)
    assert taps == ["x", "relu", "relu_1", "conv2", "shortcut", "relu_2", "relu_2#2", "mean"]


def test_a_global_mean_is_a_pool_that_has_an_integer_kernel() -> None:
    for name in ("residual", "depthwise"):
        student = aware(trained_looking(name)).freeze()
        proto = onnx.load_from_string(quantized_model(student, INT32, INPUT_SHAPE, batch_size=1))
        ops = [n.op_type for n in proto.graph.node]
        assert "GlobalAveragePool" in ops
        assert "ReduceMean" not in ops


def test_opset_and_ir_are_pinned_and_nothing_local_is_left_behind() -> None:
    model = float_model(trained_looking("residual"), INPUT_SHAPE, batch_size=1, opset=20)
    proto = onnx.load_from_string(model)
    assert proto.ir_version == IR_VERSION
    assert [(o.domain, o.version) for o in proto.opset_import] == [("", 20)]
    assert b".py" not in model  # the exporter writes stack traces with local paths


def test_the_same_student_gives_the_same_bytes() -> None:
    student = aware(trained_looking("dense")).freeze()
    first, second = (quantized_model(student, INT32, INPUT_SHAPE, batch_size=1) for _ in range(2))
    assert first == second


def test_signed_activations_have_zero_point_zero() -> None:
    from edgekd.quantize.convert import QuantizationAware
    from edgekd.quantize.settings import QuantizeSettings

    scheme = Scheme(activations="int8", bias="float32")
    net = trained_looking("residual")
    work = QuantizationAware(net, QuantizeSettings(), scheme, samples(), learned=False, seed=0)
    student = work.freeze()
    assert all(int(a.zero_point) == 0 and a.signed for a in student.activations.values())
    proto = onnx.load_from_string(quantized_model(student, scheme, INPUT_SHAPE, batch_size=1))
    stored = {i.name: i.data_type for i in proto.graph.initializer}
    zeros = [n.input[2] for n in proto.graph.node if n.op_type == "QuantizeLinear"]
    assert {stored[name] for name in zeros} == {onnx.TensorProto.INT8}


def test_an_operation_without_onnx_is_refused_by_name() -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.special.airy_ai(x.flatten(1))

    with pytest.raises(UnsupportedError, match="torch cannot export the Odd to ONNX opset 20"):
        float_model(Odd(), INPUT_SHAPE, batch_size=1, opset=20)
