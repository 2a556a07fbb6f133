from __future__ import annotations

from edgekd.backends._litert.times import timed
from edgekd.core.types import LayerRecord, Precision, Role


def layer(
    name: str, op: str, role: Role = "other", precision: Precision = "int8", by: str = "XNNPACK"
) -> LayerRecord:
    return LayerRecord(name, f"{by} {op}", role, precision)


LAYERS = [
    layer("codes", "QUANTIZE"),
    layer("border", "PAD"),
    layer("conv", "CONV_2D", "matmul"),
    layer("sum", "ADD"),
    layer("real", "DEQUANTIZE", "requantize"),
    layer("fc", "FULLY_CONNECTED", "matmul", "float32"),
]
KERNELS = [
    ("Convert (NC)", 1.0),
    ("Convolution (NHWC, QC8) IGEMM", 8.0),
    ("Add (ND)", 2.0),
    ("Clamp (NC)", 0.5),
    ("Fully Connected (NC, QD8, F32, QC8W) GEMM", 4.0),
]


def test_no_time_is_lost_and_the_order_stays() -> None:
    found = timed(LAYERS, KERNELS)
    assert [(x.name, x.time_us) for x in found] == [
        ("codes", 1.0), ("border", None), ("conv", 8.0), ("sum", 2.0), ("real", None),
        ("Clamp (NC)", 0.5), ("fc", 4.0),
    ]  # fmt: skip


def test_what_became_a_part_of_another_kernel_is_not_left_standing() -> None:
    roles = {x.name: x.role for x in timed(LAYERS, KERNELS)}
    assert roles["real"] == "other"
    converted = [*KERNELS[:4], ("Convert (NC)", 1.0), KERNELS[4]]
    roles = {x.name: x.role for x in timed(LAYERS, converted)}
    assert roles["real"] == "requantize"


def test_the_name_of_a_kernel_decides_its_precision() -> None:
    kernels = [(k.replace("QC8)", "F32)"), us) for k, us in KERNELS]
    found = {x.name: x for x in timed(LAYERS, kernels)}
    assert (found["fc"].precision, found["fc"].reason) == ("int8", "")
    assert found["conv"].precision == "float32"
    assert "Convolution (NHWC, F32) IGEMM" in found["conv"].reason


def test_kernels_of_its_own_go_by_the_name_of_their_operator() -> None:
    own = [layer("conv", "CONV_2D", "matmul", by="builtin"), layer("out", "DEQUANTIZE")]
    found = timed(own, [("CONV_2D", 3.0), ("Convert (NC)", 1.0)])
    assert [x.time_us for x in found] == [3.0, 1.0]


def test_without_a_pair_for_every_matrix_product_there_are_no_times() -> None:
    for kernels in ([], KERNELS[:4], [*KERNELS, KERNELS[1]]):
        assert timed(LAYERS, kernels) == LAYERS
