"""Files are written and run in the real runtime. `pip install '.[litert]'` to run these."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from edgekd.backends._contract import BACKENDS
from edgekd.backends._kernels import count_kernels
from edgekd.core.errors import DataError, MissingDependencyError, RecipeError, UnsupportedError
from edgekd.core.target import load_target
from edgekd.core.types import Scheme
from edgekd.export.onnx_file import float_model, quantized_model
from edgekd.quantize.convert import simulate
from edgekd.testing.onnx_models import (
    INPUT,
    INPUT_SHAPE,
    OUTPUT,
    GraphBuilder,
    convolution_net,
    sandwich_net,
)
from tests.quantize import nets
from tests.quantize.test_convert import aware, samples

TARGET, FLOAT = load_target("phone-litert-int8"), load_target("phone-litert-fp32")
try:
    PHONE = BACKENDS.get("litert")()
except MissingDependencyError as e:
    pytest.skip(e.message, allow_module_level=True)


def difference(model: bytes, folder: Path) -> tuple[float, float]:
    """Largest distance to the standard's evaluator, and the spread of its outputs."""
    path = PHONE.build(model, FLOAT, folder / "net")
    evaluator = ReferenceEvaluator(onnx.load_from_string(model))
    with PHONE.open(path, FLOAT, threads=1) as session:
        shape = session.inputs[0].shape
        feeds = [
            {INPUT: np.random.default_rng(seed).standard_normal(shape).astype(np.float32)}
            for seed in range(4)
        ]
        got = np.stack([session.run(f)[OUTPUT] for f in feeds])
    expected = np.stack([evaluator.run(None, f)[0] for f in feeds])
    assert got.shape == expected.shape
    return float(np.abs(got - expected).max()), float(expected.std())


PER_TENSOR = Scheme(activations="uint8", weight_granularity="per_tensor", bias="float32")


@pytest.mark.parametrize(
    ("name", "scheme"),
    [*((name, TARGET.scheme) for name in nets.NETS), ("depthwise", PER_TENSOR)],
    ids=[*nets.NETS, "per_tensor"],
)
def test_an_int8_file_equals_the_fake_quant_student(
    name: str, scheme: Scheme, tmp_path: Path
) -> None:
    student = aware(nets.trained_looking(name)).freeze()
    model = quantized_model(student, scheme, nets.INPUT_SHAPE, batch_size=1)
    path = PHONE.build(model, TARGET, tmp_path / "student")
    assert [p.name for p in tmp_path.iterdir()] == ["student.tflite"]
    inputs = samples(64, seed=5)
    with torch.no_grad():
        expected = simulate(student)(torch.from_numpy(inputs)).numpy()
    with PHONE.open(path, TARGET, threads=1) as session:
        got = np.concatenate([session.run({INPUT: x[None]})[OUTPUT] for x in inputs])
    assert np.abs(got - expected).max() < 0.02 * expected.std()
    layers = PHONE.layers(path, TARGET, {INPUT: inputs[:1]}, threads=1)
    counted = count_kernels(layers)
    assert (counted.int8, counted.float) == (len(student.weights), 0), counted.floats
    assert counted.unfused == 0
    assert {layer.op.split()[0] for layer in layers} == {"XNNPACK"}
    assert {layer.name for layer in layers if layer.role == "matmul"} == set(student.weights)


@pytest.mark.parametrize("name", nets.NETS)
def test_a_float_file_computes_the_same(name: str, tmp_path: Path) -> None:
    net = nets.trained_looking(name)
    apart, spread = difference(
        float_model(net, nets.INPUT_SHAPE, batch_size=1, opset=20), tmp_path
    )
    assert apart < 1e-5 < spread


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("file")
    return PHONE.build(convolution_net(quantized=True), TARGET, folder / "net")


def flat(b: GraphBuilder, name: str) -> bytes:
    return b.model(b.node("Flatten", [name], "flat"), output_shape=("a", "b"))


CONVOLUTIONS = {
    "strides": {"strides": [2, 2], "pads": [1, 1, 1, 1]},
    "valid": {"strides": [2, 1]},
    "uneven": {"pads": [0, 1, 2, 0]},
    "dilated": {"dilations": [2, 2], "pads": [2, 2, 2, 2]},
    "same": {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
}


@pytest.mark.parametrize("integers", [False, True], ids=["float", "int8"])
@pytest.mark.parametrize("attributes", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
@pytest.mark.parametrize("groups", [1, 3, "deep"])
def test_convolutions_of_every_kind(
    groups: int | str, attributes: dict[str, object], integers: bool, tmp_path: Path
) -> None:
    b = GraphBuilder()
    shape = {1: (6, 3, 3, 3), 3: (3, 1, 3, 3), "deep": (6, 1, 3, 3)}[groups]
    scale = 6 / 255 if integers else None
    x = b.grid(INPUT, scale=6 / 255, zero_point=128) if integers else INPUT
    group = 1 if groups == 1 else 3
    x = b.layer("Conv", x, shape, "conv", input_scale=scale, group=group, **attributes)
    x = b.grid(x, scale=4 / 255, zero_point=100) if integers else x
    apart, spread = difference(flat(b, x), tmp_path)
    assert apart < (1.01 * 4 / 255 if integers else 1e-5) < spread


POOLS = {
    "max": ("MaxPool", {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
    "max_same": ("MaxPool", {"pads": [1, 1, 1, 1]}),
    "mean": ("AveragePool", {"strides": [2, 2]}),
    "mean_same": ("AveragePool", {"pads": [1, 1, 1, 1]}),
    "mean_with_border": ("AveragePool", {"pads": [1, 1, 1, 1], "count_include_pad": 1}),
}


@pytest.mark.parametrize("integers", [False, True], ids=["float", "int8"])
@pytest.mark.parametrize(("op", "attributes"), POOLS.values(), ids=POOLS)
def test_pools_of_every_kind(
    op: str, attributes: dict[str, object], integers: bool, tmp_path: Path
) -> None:
    b = GraphBuilder()
    x = b.grid(INPUT, scale=6 / 255, zero_point=128) if integers else INPUT
    x = b.node(op, [x], "pool", kernel_shape=[3, 3], **attributes)
    x = b.grid(x, scale=6 / 255, zero_point=128) if integers else x
    apart, spread = difference(flat(b, x), tmp_path)
    assert apart < (1.01 * 6 / 255 if integers else 1e-5) < spread


def test_layouts_and_activations_compute_the_same(tmp_path: Path) -> None:
    b = GraphBuilder()
    x = b.node("Transpose", [INPUT], "turned", perm=[0, 2, 3, 1])
    x = b.node("Concat", [x, x], "twice", axis=3)
    x = b.node("Softmax", [b.node("Sigmoid", [x], "soft")], "more", axis=1)
    high = b.constant("high", np.float32(0.2))
    low = b.constant("low", np.float32(0.1))
    x = b.node("Clip", [x, low, high], "clipped")
    x = b.node("Mul", [x, b.constant("factor", np.ones((8, 1, 1), np.float32) * 3)], "scaled")
    x = b.node("ReduceMean", [x, b.constant("axes", np.array([1]))], "mean", keepdims=0)
    apart, spread = difference(flat(b, x), tmp_path)
    assert apart < 1e-6 < spread


def test_a_batch_norm_computes_the_same(tmp_path: Path) -> None:
    b = GraphBuilder()
    numbers = [b.constant(n, np.float32([0.5, 1, 2])) for n in ("scale", "bias", "mean", "var")]
    x = b.node("Relu", [b.node("BatchNormalization", [INPUT, *numbers], "norm")], "relu")
    assert difference(flat(b, x), tmp_path)[0] < 1e-5


def test_an_output_that_is_an_input_is_a_copy(tmp_path: Path) -> None:
    b = GraphBuilder()
    model = b.model(b.node("Identity", [INPUT], "same"), output_shape=INPUT_SHAPE)
    assert difference(model, tmp_path)[0] == 0


def test_signed_codes_compute_the_same(tmp_path: Path) -> None:
    assert difference(convolution_net(quantized=True, codes="int8"), tmp_path)[0] < 0.002


@pytest.mark.parametrize("bits", [4, 8])
def test_fewer_bits_run_in_int8_kernels(bits: int, tmp_path: Path) -> None:
    model = convolution_net(quantized=True, bits=bits)
    apart, _ = difference(model, tmp_path)
    assert apart < 0.02
    path = PHONE.build(model, TARGET, tmp_path / "int8")
    feeds = {INPUT: np.zeros(INPUT_SHAPE, np.float32)}
    counted = count_kernels(PHONE.layers(path, TARGET, feeds, threads=1))
    assert (counted.int8, counted.float, counted.unfused) == (2, 0, 0)


def test_a_linear_layer_of_4_bits_takes_4_in_the_file(tmp_path: Path) -> None:
    sizes = {}
    for bits in (4, 8):
        b = GraphBuilder()
        x = b.grid(b.node("Flatten", [INPUT], "flat"), scale=6 / 255, zero_point=128)
        x = b.layer("Gemm", x, (34, 192), "on_grid", input_scale=6 / 255, bits=bits, transB=1)
        x = b.grid(x, scale=4 / 255, zero_point=128)
        x = b.layer("Gemm", x, (5, 34), "in_float", input_scale=4 / 255, bits=bits, transB=1)
        model = b.model(x, opset=21)
        assert difference(model, tmp_path)[0] < 0.05
        path = PHONE.build(model, TARGET, tmp_path / f"{bits}")
        sizes[bits] = path.stat().st_size
        feeds = {INPUT: np.zeros(INPUT_SHAPE, np.float32)}
        layers = PHONE.layers(path, TARGET, feeds, threads=1)
        assert count_kernels(layers).int8 == 2
        assert {layer.op for layer in layers if layer.role == "matmul"} == {
            "XNNPACK FULLY_CONNECTED"
        }
    assert sizes[8] - sizes[4] == pytest.approx((34 * 192 + 5 * 34) / 2, abs=128)


def test_a_layer_in_float_says_why(tmp_path: Path) -> None:
    model = convolution_net(quantized=True, conv_output_grid=False)
    path = PHONE.build(model, TARGET, tmp_path / "net")
    feeds = {INPUT: np.zeros(INPUT_SHAPE, np.float32)}
    counted = count_kernels(PHONE.layers(path, TARGET, feeds, threads=1))
    assert counted.floats == {"conv": "no QuantizeLinear on its output"}


def test_an_operator_in_float_between_kernels_shows_as_unfused(tmp_path: Path) -> None:
    path = PHONE.build(sandwich_net("Softmax"), TARGET, tmp_path / "net")
    feeds = {INPUT: np.zeros(INPUT_SHAPE, np.float32)}
    layers = PHONE.layers(path, TARGET, feeds, threads=1)
    counted = count_kernels(layers)
    assert (counted.int8, counted.unfused) == (2, 2)
    assert [x.precision for x in layers if "SOFTMAX" in x.op] == ["float32"]


def test_layers_have_times(built: Path) -> None:
    feeds = {INPUT: np.ones(INPUT_SHAPE, np.float32)}
    layers = PHONE.layers(built, TARGET, feeds, threads=1)
    times = {x.name: x.time_us for x in layers if x.role == "matmul"}
    assert times["conv"] is not None
    assert times["conv"] > 0
    assert times["fc"] is not None


def test_without_its_profiler_layers_have_no_times(
    built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    feeds = {INPUT: np.ones(INPUT_SHAPE, np.float32)}
    layers = PHONE.layers(built, TARGET, feeds, threads=1)
    assert {x.time_us for x in layers} == {None}
    assert count_kernels(layers).int8 == 2


@pytest.mark.parametrize("keep", [0, 3, 40, 2000, -1])
def test_a_file_that_is_cut_off_is_refused(keep: int, built: Path, tmp_path: Path) -> None:
    path = tmp_path / "net.tflite"
    path.write_bytes(built.read_bytes()[:keep])
    with pytest.raises(DataError, match="no whole LiteRT file"):
        PHONE.open(path, TARGET, threads=1)


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.tflite"
    path.write_bytes(b"<html>404: not found</html>" * 10)
    with pytest.raises(DataError, match="another kind of file"):
        PHONE.open(path, TARGET, threads=1)


def test_a_flipped_bit_never_ends_the_process(built: Path, tmp_path: Path) -> None:
    content = built.read_bytes()
    path = tmp_path / "net.tflite"
    rng = np.random.default_rng(0)
    refused = 0
    for place in rng.integers(0, len(content), 40):
        path.write_bytes(content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :])
        try:
            PHONE.open(path, TARGET, threads=1).close()
        except (DataError, UnsupportedError):
            refused += 1
    assert refused > 10


def test_damaged_notes_are_refused(tmp_path: Path) -> None:
    model = convolution_net(quantized=True, conv_output_grid=False)
    path = PHONE.build(model, TARGET, tmp_path / "net")
    content = path.read_bytes()
    assert content.count(b"{}") == 1
    path.write_bytes(content.replace(b"{}", b"[]"))
    feeds = {INPUT: np.zeros(INPUT_SHAPE, np.float32)}
    with pytest.raises(DataError, match="no whole LiteRT file"):
        PHONE.layers(path, TARGET, feeds, threads=1)


def one(op: str, **attributes: object) -> bytes:
    b = GraphBuilder()
    return flat(b, b.node("GlobalAveragePool", [b.node(op, [INPUT], "x", **attributes)], "pool"))


def lowest_weight() -> bytes:
    model = onnx.load_from_string(convolution_net(quantized=True))
    for stored in model.graph.initializer:
        if stored.name == "conv.code":
            codes = onnx.numpy_helper.to_array(stored).copy()
            codes.flat[0] = -128
            stored.CopyFrom(onnx.numpy_helper.from_array(codes, stored.name))
    return model.SerializeToString()


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (one("Det"), "the Det 'x'"),
        (one("Transpose"), "none"),
        (one("AveragePool", kernel_shape=[2, 2], pads=[0, 0, 1, 1], strides=[2, 2]), "SAME"),
        (one("MaxPool", kernel_shape=[2, 2], auto_pad="SAME_LOWER"), "SAME_LOWER"),
        (one("MaxPool", kernel_shape=[3, 3], ceil_mode=1), "ceil_mode 1"),
        (one("Softmax", axis=2), "axis 2"),
        (convolution_net(quantized=False, batch="n"), "leaves an axis open"),
    ],
    ids=["operator", "order", "padding", "auto_pad", "ceil", "softmax", "open"],
)
def test_what_is_not_known_is_refused_by_name(model: bytes, said: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=said) as caught:
        PHONE.build(model, FLOAT, tmp_path / "net")
    assert caught.value.todo
    assert list(tmp_path.iterdir()) == []


def test_a_code_of_minus_128_keeps_its_layer_in_float(tmp_path: Path) -> None:
    path = PHONE.build(lowest_weight(), TARGET, tmp_path / "net")
    feeds = {INPUT: np.zeros(INPUT_SHAPE, np.float32)}
    counted = count_kernels(PHONE.layers(path, TARGET, feeds, threads=1))
    assert list(counted.floats) == ["conv"]


def test_options_are_refused() -> None:
    target = TARGET.model_copy(update={"options": {"threads": 2}})
    with pytest.raises(RecipeError, match="no options"):
        PHONE.check_machine(target)
