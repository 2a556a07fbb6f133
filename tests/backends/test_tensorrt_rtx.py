"""Engines are really built, for GPUs that are not here; nothing is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest

from edgekd.backends._contract import BACKENDS
from edgekd.backends._kernels import count_kernels
from edgekd.backends._tensorrt.rtx_layers import kernels
from edgekd.core.errors import RecipeError, UnsupportedError
from edgekd.core.target import Target, load_target
from edgekd.core.types import Scheme
from edgekd.export.onnx_file import float_model, quantized_model
from edgekd.profile.probe_models import probe_model
from edgekd.quantize.convert import QuantizationAware
from edgekd.quantize.settings import QuantizeSettings
from edgekd.testing.onnx_models import convolution_net
from tests.quantize.nets import INPUT_SHAPE, trained_looking
from tests.quantize.test_convert import samples

trt = pytest.importorskip("tensorrt_rtx", reason="pip install '.[tensorrt-rtx]'")

TARGET = load_target("rtx-tensorrt-int8")
RTX = BACKENDS.get("tensorrt_rtx")()
MAGIC = b"vtrt"


def for_gpus(text: str, **options: Any) -> Target:
    return TARGET.model_copy(update={"options": {"compute_capabilities": text, **options}})


@pytest.fixture(scope="module")
def student() -> bytes:
    """A residual network, quantized and exported as the target wants it."""
    assert TARGET.scheme is not None
    return exported(TARGET.scheme)


def exported(scheme: Scheme) -> bytes:
    net = trained_looking("residual")
    aware = QuantizationAware(net, QuantizeSettings(), scheme, samples(), learned=False, seed=0)
    return quantized_model(aware.freeze(), scheme, INPUT_SHAPE, batch_size=1)


@pytest.mark.parametrize("gpus", ["8.6", "8.9", "8.6 8.9"])
def test_a_quantized_student_becomes_an_engine(gpus: str, student: bytes, tmp_path: Path) -> None:
    path = RTX.build(student, for_gpus(gpus), tmp_path / "student")
    assert path == tmp_path / "student.engine"
    engine = path.read_bytes()
    assert engine[:4] == MAGIC
    assert len(engine) > 100_000
    assert list(tmp_path.iterdir()) == [path]


def test_every_layer_of_the_student_is_compiled_to_an_int8_kernel(
    student: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "student.onnx"
    path.write_bytes(student)
    found = RTX.layers(path, TARGET, {}, threads=1)
    counted = count_kernels(found)
    names = [n.name for n in onnx.load(path).graph.node if n.op_type in ("Conv", "Gemm")]
    assert len(names) == 5
    assert (counted.int8, counted.float) == (len(names), 0)
    for name in names:
        assert sum(layer.name.endswith(f" [{name}]") for layer in found) == 1
    assert {layer.time_us for layer in found} == {None}, "nothing was run"


def test_a_float_student_is_compiled_to_float_kernels(tmp_path: Path) -> None:
    model = float_model(trained_looking("residual"), INPUT_SHAPE, batch_size=1, opset=20)
    path = tmp_path / "float.onnx"
    path.write_bytes(model)
    counted = count_kernels(RTX.layers(path, TARGET, {}, threads=1))
    assert (counted.int8, counted.float) == (0, 5)
    assert set(counted.floats.values()) == {"input and weights are float"}


@pytest.mark.parametrize(
    ("scheme", "got"),
    [
        (Scheme(activations="uint8", bias="int32"), "uint8 codes"),
        (Scheme(activations="int8", bias="int32"), "int32 codes"),
    ],
    ids=str,
)
def test_the_export_for_another_target_is_refused(
    scheme: Scheme, got: str, tmp_path: Path
) -> None:
    with pytest.raises(UnsupportedError, match="would refuse or misread") as caught:
        RTX.build(exported(scheme), TARGET, tmp_path / "student")
    assert caught.value.got == got
    assert "export it for 'rtx-tensorrt-int8' itself" in caught.value.todo
    assert list(tmp_path.iterdir()) == []


def test_without_our_check_the_parser_would_take_uint8_for_int8() -> None:
    """Why the check is there; a parser that learns better may drop it."""
    said: list[str] = []

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, text: str) -> None:
            if severity == trt.ILogger.WARNING:
                said.append(text)

    model = onnx.load_from_string(convolution_net(quantized=True, integer_bias=False))
    for constant in model.graph.initializer:
        if constant.name == "input.zero_point":
            constant.CopyFrom(onnx.helper.make_tensor(constant.name, 2, [], [0]))
    log = Log()
    builder = trt.Builder(log)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, log)
    assert parser.parse(model.SerializeToString())
    assert any("Defaulting to INT8" in text for text in said)


def test_int4_weights_in_blocks_are_taken(tmp_path: Path) -> None:
    model = probe_model("matmul", TARGET.scheme, "per_block")
    assert RTX.build(model, TARGET, tmp_path / "int4").read_bytes()[:4] == MAGIC


def test_what_the_parser_does_not_know_is_named(tmp_path: Path) -> None:
    model = onnx.load_from_string(convolution_net(quantized=False))
    model.graph.node[1].op_type = "Det"
    with pytest.raises(UnsupportedError, match="TensorRT-RTX cannot load") as caught:
        RTX.build(model.SerializeToString(), TARGET, tmp_path / "model")
    assert caught.value.got.startswith("relu: ")


def test_an_open_axis_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"'input' of .* leaves an axis open"):
        RTX.build(convolution_net(quantized=False, batch="n"), TARGET, tmp_path / "model")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "got:      none"),
        ({"compute_capabilities": "9.0"}, "expected: options.compute_capabilities: some of 7.5"),
        ({"compute_capabilities": "8.6 x"}, "got:      x"),
        ({"compute_capabilities": 8.6, "tf23": True}, "Did you mean 'tf32'?"),
    ],
)
def test_options_are_checked(options: dict[str, Any], text: str, tmp_path: Path) -> None:
    target = TARGET.model_copy(update={"options": options})
    with pytest.raises(RecipeError) as caught:
        RTX.build(convolution_net(quantized=False), target, tmp_path / "model")
    assert text in caught.value.message


def test_one_gpu_may_be_given_as_a_number(tmp_path: Path) -> None:
    target = TARGET.model_copy(update={"options": {"compute_capabilities": 8.9, "tf32": True}})
    model = convolution_net(quantized=False)
    assert RTX.build(model, target, tmp_path / "model").read_bytes()[:4] == MAGIC


def test_nothing_is_run_and_that_is_said(student: bytes, tmp_path: Path) -> None:
    path = RTX.build(student, TARGET, tmp_path / "student")
    for call in (
        lambda: RTX.open(path, TARGET, threads=1),
        lambda: RTX.layers(path, TARGET, {}, threads=1),
        lambda: RTX.check_machine(TARGET),
    ):
        with pytest.raises(UnsupportedError) as caught:
            call()
        assert "runs on an NVIDIA RTX GPU" in caught.value.expected
        assert caught.value.todo


SAID = (
    "Layers:\nName: a_myl0_0, LayerType: gemm, Inputs: [ { Name: x, Dimensions: [1,8], Datatype: "
    "Int8 }, { Name: y, Dimensions: [], Datatype: Half }], Constants: [ { Name: w, Dimensions: "
    "[8,6], Datatype: Int8 }, { Name: b, Dimensions: [6], Datatype: Float }], Outputs: [ { Name: "
    "z, Dimensions: [1,6], Datatype: Float }], TacticName: t, StreamId: 0, Metadata: [ONNX Layer: "
    "conv][ONNX Layer: fc]\n"
    "Name: b_myl0_1, LayerType: maxpool, Inputs: [ { Name: z, Datatype: Int8 }], Constants: [ { "
    "Name: c, Datatype: Float }], Outputs: [ { Name: o, Datatype: Int8 }], TacticName: , "
    "StreamId: 0, Metadata: \n"
)


def test_a_line_of_the_builders_list_is_a_kernel() -> None:
    kernel, pool = kernels(SAID, Path("x.onnx"))
    assert (kernel.name, kernel.op, kernel.weights) == ("a_myl0_0", "gemm", "Int8")
    assert (kernel.takes, kernel.makes) == (("Int8", "Half"), ("Float",))
    assert kernel.origins() == ["conv", "fc"]
    assert (pool.op, pool.weights, pool.precision()) == ("maxpool", "", "int8")
    assert (pool.takes, pool.makes, pool.metadata) == (("Int8",), ("Int8",), "")


@pytest.mark.parametrize("said", ["", "Layers:\n", SAID + "Name: b, Kind: gemm\n"])
def test_another_form_of_the_list_is_refused(said: str) -> None:
    with pytest.raises(UnsupportedError, match="as edgekd knows it"):
        kernels(said, Path("x.onnx"))
