"""Kernel counts and the reasons for float ones, on graphs spoiled in one way each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgekd.backends._contract import BACKENDS
from edgekd.backends._kernels import UNKNOWN_REASON, count_kernels
from edgekd.core.target import load_target
from edgekd.core.types import KernelCount, LayerRecord
from edgekd.testing.onnx_models import INPUT, GraphBuilder, convolution_net, sandwich_net

FEEDS = {INPUT: np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)}
ORT, OV = "x86-onnxruntime-int8", "x86-openvino-int8"


def layers(model: bytes, target_name: str, folder: Path) -> list[LayerRecord]:
    target = load_target(target_name)
    path = folder / "model.onnx"
    path.write_bytes(model)
    return list(BACKENDS.get(target.backend)().layers(path, target, FEEDS, threads=1))


def count(model: bytes, target_name: str, folder: Path) -> KernelCount:
    return count_kernels(layers(model, target_name, folder))


def reasons(kernels: KernelCount) -> list[str]:
    return sorted(kernels.floats.values())


# what spoils the graph -> int8 kernels, unfused nodes and reasons in each runtime; read off
# ONNX Runtime 1.31 and OpenVINO 2026.4, whose fusions are what these tests pin down
SPOILED = {
    "no output grid": (
        {"conv_output_grid": False},
        (1, 2, ["no QuantizeLinear on its output"]),
        (2, 0, []),
    ),
    "no input grid": (
        {"conv_input_grid": False},
        (1, 1, ["its input is not quantized"]),
        (1, 1, ["its input is not quantized"]),
    ),
    "float bias": ({"integer_bias": False}, (1, 1, ["bias is float"]), (2, 0, [])),
    "int4 weights": (
        {"bits": 4},
        (1, 2, ["weights are int4: storage only"]),
        (1, 1, ["weights are int4: storage only"]),
    ),
    "signed activations": (
        {"codes": "int8"},
        (1, 2, ["its Relu is not absorbed by the zero point behind it"]),
        (2, 0, []),
    ),
    "Flatten in front": (
        {"flatten_between": True},
        (1, 1, ["a Flatten stands between it and its DequantizeLinear"]),
        (2, 0, []),
    ),
}


@pytest.mark.parametrize("runtime", [0, 1], ids=["onnxruntime", "openvino"])
@pytest.mark.parametrize("case", SPOILED)
def test_a_spoiled_graph_is_counted_and_explained(case: str, runtime: int, tmp_path: Path) -> None:
    switches, *expected = SPOILED[case]
    kernels = count(convolution_net(quantized=True, **switches), (ORT, OV)[runtime], tmp_path)
    int8, unfused, why = expected[runtime]
    assert (kernels.int8, kernels.unfused, reasons(kernels)) == (int8, unfused, why)
    assert kernels.int8 + kernels.float == 2


@pytest.mark.parametrize(("target", "op"), [(ORT, "Erf"), (OV, "Softmax")])
def test_a_float_operator_between_int8_layers_leaves_two_nodes_unfused(
    target: str, op: str, tmp_path: Path
) -> None:
    """Each runtime fuses the other's operator."""
    kernels = count(sandwich_net(op), target, tmp_path)
    assert (kernels.int8, kernels.float, kernels.unfused) == (2, 0, 2)


@pytest.mark.parametrize("target", [ORT, OV])
def test_grids_at_the_graphs_own_inputs_and_outputs_are_not_unfused(
    target: str, tmp_path: Path
) -> None:
    b = GraphBuilder()
    x = b.node("Transpose", [INPUT], "turned", perm=[0, 1, 3, 2])
    x = b.grid(x, scale=6 / 255, zero_point=128)
    x = b.layer("Conv", x, (5, 3, 8, 8), "conv", input_scale=6 / 255)
    x = b.grid(x, scale=4 / 255, zero_point=128)
    kernels = count(b.model(b.node("Flatten", [x], "flat")), target, tmp_path)
    assert (kernels.int8, kernels.float, kernels.unfused) == (1, 0, 0)


@pytest.mark.parametrize("target", [ORT, OV])
def test_attention_without_weights_is_a_matrix_product(target: str, tmp_path: Path) -> None:
    b = GraphBuilder()
    rows = b.node("Reshape", [INPUT, b.constant("rows", np.array([1, 4, 3, 16]))], "tokens")
    turned = b.node("Transpose", [rows], "turned", perm=[0, 1, 3, 2])
    scores = b.node("MatMul", [rows, turned], "scores")
    soft = b.node("Softmax", [scores], "soft", axis=-1)
    mixed = b.node("MatMul", [soft, rows], "mixed")
    kernels = count(b.model(mixed, output_shape=(1, 4, 3, 16)), target, tmp_path)
    assert kernels.int8 == 0
    assert kernels.float >= 1  # OpenVINO may compile both into one kernel
    assert set(kernels.floats.values()) == {"its inputs are not quantized"}


@pytest.mark.parametrize("target", [ORT, OV])
def test_a_recurrent_layer_is_named(target: str, tmp_path: Path) -> None:
    b = GraphBuilder()
    rng = np.random.default_rng(0)
    rows = b.node("Reshape", [INPUT, b.constant("rows", np.array([24, 1, 8]))], "steps")
    w = b.constant("w", rng.normal(0, 0.1, (1, 16, 8)).astype(np.float32))
    r = b.constant("r", rng.normal(0, 0.1, (1, 16, 4)).astype(np.float32))
    out = b.node("LSTM", [rows, w, r], "lstm", hidden_size=4)
    kernels = count(b.model(out, output_shape=(24, 1, 1, 4)), target, tmp_path)
    assert (kernels.int8, kernels.float) == (0, 1)
    assert reasons(kernels)[0].endswith("is not quantized")


def test_names_lead_back_to_the_file(tmp_path: Path) -> None:
    records = layers(convolution_net(quantized=False), ORT, tmp_path)
    matmuls = [r.name for r in records if r.role == "matmul"]
    # ONNX Runtime calls a convolution in its blocked layout after the tensor that it makes
    assert matmuls[0] in ("relu_nchwc [conv]", "conv")
    assert matmuls[1] == "fc"


def test_nodes_without_names_are_told_apart(tmp_path: Path) -> None:
    import onnx

    proto = onnx.load_from_string(convolution_net(quantized=True))
    for node in proto.graph.node:
        node.name = ""
    records = layers(proto.SerializeToString(), ORT, tmp_path)
    assert len({r.name for r in records}) == len(records)
    kernels = count_kernels(records)
    assert (kernels.int8, kernels.float, kernels.unfused) == (2, 0, 0)


def test_a_branch_that_ran_is_counted_once(tmp_path: Path) -> None:
    """If nodes hold graphs of their own; only the branch taken shows up in the profile."""
    import onnx
    from onnx import TensorProto, helper

    def branch(name: str) -> onnx.GraphProto:
        node = helper.make_node("MatMul", [INPUT, "w"], [f"{name}_out"], name="product")
        out = helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, None)
        return helper.make_graph([node], name, [], [out])

    nodes = [
        helper.make_node("ReduceSum", [INPUT], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "limit"], ["above"]),
        helper.make_node(
            "If", ["above"], ["logits"], then_branch=branch("yes"), else_branch=branch("no")
        ),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)],
        [
            onnx.numpy_helper.from_array(np.float32(1e9), "limit"),
            onnx.numpy_helper.from_array(np.ones((8, 2), np.float32), "w"),
        ],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10
    ).SerializeToString()
    kernels = count(model, ORT, tmp_path)
    assert (kernels.int8, kernels.float) == (0, 1)
    assert reasons(kernels) == ["input and weights are float"]


def test_counting_takes_unknown_reasons_and_other_precisions_for_float() -> None:
    kernels = count_kernels(
        [
            LayerRecord("a", "Conv", "matmul", "int8"),
            LayerRecord("b", "Conv", "matmul", "float32"),
            LayerRecord("c", "MatMul", "matmul", "int4", reason="stored only"),
            LayerRecord("d", "QuantizeLinear", "requantize", "int8"),
            LayerRecord("e", "Relu", "other", "float32"),
        ]
    )
    assert kernels == KernelCount(1, 2, 1, {"b": UNKNOWN_REASON, "c": "stored only"})
