from __future__ import annotations

import onnx
import pytest

from edgekd.backends._kernels import count_kernels
from edgekd.backends._tensorrt.kernels import Kernel, records, with_names
from edgekd.testing.onnx_models import convolution_net

MODEL = onnx.load_from_string(
    convolution_net(quantized=True, codes="int8", integer_bias=False)
)  # Conv "conv", Relu "relu", Gemm "fc"


def held(*names: str) -> str:
    return "".join(f"[ONNX Layer: {name}]" for name in names)


def kernel(op: str, metadata: str, takes: str = "Int8", makes: str = "Int8") -> Kernel:
    return Kernel(f"k_{op}", op, (takes,), (makes,), metadata=metadata)


@pytest.mark.parametrize(
    ("takes", "weights", "precision"),
    [
        ("Int8", "Int8", "int8"),
        ("Thirty-two wide channel vectorized row major Int8 format", "Int8", "int8"),
        ("Two wide channel vectorized row major FP16 format", "Half", "float16"),
        ("Row major linear FP32", "", "float32"),
        ("Float", "Int8", "other"),
        ("Int8", "Float", "other"),
        ("BFloat16", "BFloat16", "bfloat16"),
        ("N/A due to dynamic shapes", "", "other"),
        ("UInt8", "", "other"),
    ],
)
def test_a_precision_is_that_of_values_and_weights(
    takes: str, weights: str, precision: str
) -> None:
    assert Kernel("k", "gemm", (takes,), (takes,), weights).precision() == precision


def test_a_kernel_without_inputs_has_no_known_precision() -> None:
    assert Kernel("k", "Constant", (), ("Float",)).precision() == "other"


def test_the_kernel_from_the_library_is_the_layer() -> None:
    found = records(
        [
            kernel("kgen", held("input/codes", "conv"), takes="Float"),
            kernel("correlation", held("conv")),
            kernel("kgen", held("conv", "relu", "pool")),
            kernel("gemm", held("fc")),
        ],
        MODEL,
    )
    assert [(x.name, x.role) for x in found] == [
        ("k_kgen", "other"),
        ("k_correlation [conv]", "matmul"),
        ("k_kgen", "other"),
        ("k_gemm [fc]", "matmul"),
    ]
    assert (count_kernels(found).int8, count_kernels(found).float) == (2, 0)


def test_two_layers_in_one_kernel_are_two_with_one_time() -> None:
    one = Kernel("k", "gemm", ("Int8",), ("Int8",), "Int8", held("conv", "fc"), time_us=7.0)
    found = records([one], MODEL)
    assert [(x.name, x.time_us) for x in found] == [("k [conv]", 7.0), ("k [fc]", None)]


def test_a_layer_without_a_kernel_is_not_left_out() -> None:
    counted = count_kernels(records([kernel("CaskConvolution", held("conv"))], MODEL))
    assert (counted.int8, counted.floats) == (1, {"fc": "the engine names no kernel for it"})


def test_older_versions_join_names() -> None:
    name = "conv.weight + conv.code/real + conv + relu"
    found = records([Kernel(name, "CaskConvolution", ("Int8",), ("Int8",), "Int8")], MODEL)
    assert (found[0].name, found[0].role) == (f"{name} [conv]", "matmul")


@pytest.mark.parametrize(
    ("takes", "makes", "is_boundary", "role"),
    [
        ("Row major FP16 format", "Row major Int8 format", False, "requantize"),
        ("Row major Int8 format", "Row major linear FP32", False, "requantize"),
        ("Row major FP16 format", "Row major Int8 format", True, "other"),
        ("Row major Int8 format", "Channel major Int8 format", False, "other"),
        ("Row major FP16 format", "Row major linear FP32", False, "other"),
    ],
)
def test_a_conversion_inside_the_graph_is_requantization(
    takes: str, makes: str, is_boundary: bool, role: str
) -> None:
    # older versions name it after the layer behind it, which it is not
    one = Kernel("conv + relu", "Reformat", (takes,), (makes,), is_boundary=is_boundary)
    assert records([one], MODEL)[0].role == role


def test_every_node_gets_a_name() -> None:
    model = onnx.load_from_string(convolution_net(quantized=False))
    model.graph.node[0].name = ""
    assert with_names(model).graph.node[0].name == "conv"
