from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgekd.backends._contract import BACKENDS
from edgekd.backends._kernels import count_kernels
from edgekd.core.errors import RecipeError, UnsupportedError
from edgekd.core.target import load_target
from edgekd.testing.onnx_models import INPUT, INPUT_SHAPE, OUTPUT, GraphBuilder, convolution_net

TARGET = load_target("reference-fp32")
REFERENCE = BACKENDS.get("reference")()
FEEDS = {INPUT: np.random.default_rng(0).standard_normal(INPUT_SHAPE).astype(np.float32)}


def written(folder: Path, model: bytes) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(model)
    return path


def model_of(nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray]) -> bytes:
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [None])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [None])],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opset = helper.make_opsetid("", 20)
    return helper.make_model(graph, opset_imports=[opset], ir_version=10).SerializeToString()


@pytest.mark.parametrize(("codes", "zero_point"), [("uint8", 128), ("uint8", 3), ("int8", 0)])
def test_a_grid_rounds_half_to_even_and_saturates(
    tmp_path: Path, codes: str, zero_point: int
) -> None:
    scale = np.float32(0.25)  # a power of two, so that halves are exact
    steps = np.array([-900, -2.5, -1.5, -0.5, 0, 0.5, 1.5, 2.5, 3.49, 900], np.float32)
    builder = GraphBuilder(codes=codes)
    model = builder.model(
        builder.grid(INPUT, scale=float(scale), zero_point=zero_point),
        input_shape=[None],
        output_shape=[None],
    )
    with REFERENCE.open(written(tmp_path, model), TARGET, threads=1) as session:
        got = session.run({INPUT: steps * scale})[OUTPUT]
    limits = np.iinfo(codes)
    whole = np.array([-900, -2, -2, 0, 0, 0, 2, 2, 3, 900])
    expected = (np.clip(whole + zero_point, limits.min, limits.max) - zero_point) * scale
    assert np.array_equal(got, expected.astype(np.float32))


@pytest.mark.parametrize("codes", ["uint8", "int8"])
def test_a_quantized_file_computes_what_onnxruntime_computes(tmp_path: Path, codes: str) -> None:
    path = written(tmp_path, convolution_net(quantized=True, codes=codes))
    runtime = load_target("x86-onnxruntime-fp32").model_copy(
        update={"options": {"session.disable_quant_qdq": "1"}}  # as written, no integer kernels
    )
    with (
        REFERENCE.open(path, TARGET, threads=1) as ours,
        BACKENDS.get("onnxruntime")().open(path, runtime, threads=1) as theirs,
    ):
        got, expected = ours.run(FEEDS)[OUTPUT], theirs.run(FEEDS)[OUTPUT]
    assert np.abs(got - expected).max() < 1e-5
    assert expected.std() > 0.01


def test_no_kernel_of_a_quantized_file_is_called_int8(tmp_path: Path) -> None:
    path = written(tmp_path, convolution_net(quantized=True))
    layers = REFERENCE.layers(path, TARGET, FEEDS, threads=1)
    kernels = count_kernels(layers)
    assert (kernels.int8, kernels.float) == (0, 2)
    assert set(kernels.floats.values()) == {"numpy has no int8 kernels"}
    assert kernels.unfused == 7, "four grids, of which one takes in what the graph is fed"
    assert all(layer.time_us is not None and layer.time_us > 0 for layer in layers)


def test_a_branch_is_timed_with_what_it_reads_from_outside(tmp_path: Path) -> None:
    def branch(op: str) -> onnx.GraphProto:
        node = helper.make_node(op, [INPUT, "two"], [op])
        made = helper.make_tensor_value_info(op, TensorProto.FLOAT, [None])
        return helper.make_graph([node], op, [], [made])

    nodes = [
        helper.make_node("ReduceMax", [INPUT], ["top"], keepdims=0),
        helper.make_node("Greater", ["top", "two"], ["large"]),
        helper.make_node(
            "If", ["large"], [OUTPUT], then_branch=branch("Mul"), else_branch=branch("Add")
        ),
    ]
    path = written(tmp_path, model_of(nodes, {"two": np.array(2, np.float32)}))
    feeds = {INPUT: np.array([1, 3], np.float32)}
    with REFERENCE.open(path, TARGET, threads=1) as session:
        assert session.run(feeds)[OUTPUT].tolist() == [2, 6]
    layers = REFERENCE.layers(path, TARGET, feeds, threads=1)
    assert [(x.name, x.op) for x in layers] == [
        ("top", "ReduceMax"), ("large", "Greater"), (OUTPUT, "If"),
    ]  # fmt: skip
    assert [x.precision for x in layers] == ["float32", "other", "float32"]


def test_options_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, convolution_net(quantized=False))
    target = TARGET.model_copy(update={"options": {"speed": 11}})
    with pytest.raises(RecipeError, match="has options, which ONNX's reference evaluator has not"):
        REFERENCE.open(path, target, threads=1)


def test_an_input_that_is_no_tensor_is_refused(tmp_path: Path) -> None:
    node = helper.make_node("SequenceAt", ["many", "first"], [OUTPUT])
    model = onnx.load_from_string(model_of([node], {"first": np.array(0, np.int64)}))
    kind = helper.make_tensor_type_proto(TensorProto.FLOAT, [None])
    model.graph.input[0].CopyFrom(
        helper.make_value_info("many", helper.make_sequence_type_proto(kind))
    )
    with pytest.raises(UnsupportedError, match="no plain tensor") as caught:
        REFERENCE.open(written(tmp_path, model.SerializeToString()), TARGET, threads=1)
    assert caught.value.got == "sequence_type"
