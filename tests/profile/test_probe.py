from __future__ import annotations

import onnx
import pytest

from edgekd.core.progress import Silent
from edgekd.core.target import load_target
from edgekd.core.types import LayerRecord
from edgekd.profile.probe import CheckUp, cases, judge, probe, runtime_problem
from edgekd.profile.probe_models import PROBED, probe_model

INT8, FLOAT = load_target("x86-onnxruntime-int8"), load_target("x86-onnxruntime-fp32")


def checked(name: str, monkeypatch: pytest.MonkeyPatch, *only: str) -> CheckUp:
    target = load_target(name)
    plan = [case for case in cases(target) if case[0] in only]
    monkeypatch.setattr("edgekd.profile.probe.cases", lambda target: plan)
    return probe(runtime_problem(target), target, Silent())


def test_every_probe_is_a_valid_model() -> None:
    assert {op for op, _ in cases(INT8)} == set(PROBED)
    for op, granularity in cases(INT8):
        model = onnx.load_from_string(probe_model(op, INT8.scheme, granularity))
        onnx.checker.check_model(model, full_check=True)
    for op, granularity in cases(FLOAT):
        model = onnx.load_from_string(probe_model(op, None, granularity))
        onnx.checker.check_model(model, full_check=True)
        quantized = any(n.op_type == "DequantizeLinear" for n in model.graph.node)
        assert quantized == (granularity == "per_block")


def test_onnxruntime_as_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    found = checked(INT8.name, monkeypatch, "conv 3x3", "linear", "add", "matmul")
    assert found.version is not None
    assert {(r.op, r.bits, r.granularity): r.verdict for r in found.rows} == {
        ("conv 3x3", 8, "per_tensor"): "int8 kernel",
        ("conv 3x3", 8, "per_channel"): "int8 kernel",
        ("linear", 8, "per_tensor"): "int8 kernel",
        ("linear", 8, "per_channel"): "int8 kernel",
        ("add", 8, "-"): "int8 kernel",
        ("matmul", 4, "per_block"): "int4 kernel",
    }


def test_openvino_says_what_it_merges_and_what_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    found = checked("x86-openvino-int8", monkeypatch, "linear, relu, linear")
    for row in found.rows:
        # newer versions may keep the layers apart, which is as good
        if row.verdict != "int8 kernel":
            assert row.verdict == "float kernel"
            assert row.reason.startswith("merged into a Subgraph, which the runtime reports as ")
            assert row.reason.endswith(
                "SNIPPETS_MODE: DISABLE in the target's options: int8 kernel"
            )
    assert len(found.rows) == 2


def test_a_float_target_has_float_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    found = checked(FLOAT.name, monkeypatch, "max pool")
    assert [(r.op, r.bits, r.verdict) for r in found.rows] == [("max pool", 32, "float kernel")]


def layer(op: str, role: str = "matmul", precision: str = "int8", reason: str = "") -> LayerRecord:
    return LayerRecord("n", op, role, precision, 1.0, reason)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("op", "bits", "layers", "verdict", "reason"),
    [
        ("linear", 8, [layer("QGemm")], "int8 kernel", ""),
        ("linear", 8, [layer("Gemm", precision="float32", reason="bias is float")],
         "float kernel", "bias is float"),
        ("linear", 8, [layer("Gemm", precision="float32")],
         "float kernel", "Gemm in float32, no reason known"),
        ("linear", 8, [layer("QGemm"), layer("DequantizeLinear", "requantize", "float32")],
         "int8 kernel", "1 Q/DQ nodes left standing"),
        ("linear", 8, [layer("Reorder", "other")],
         "float kernel", "no node of its own; what ran: Reorder"),
        ("add", 8, [layer("QLinearConv"), layer("Add", "other", "float32")],
         "float kernel", "Add in float32, no reason known"),
        ("add", 8, [layer("Convolution")], "int8 kernel", "no node of its own beside Convolution"),
        ("matmul", 4, [layer("FullyConnected", precision="int4")],
         "int4 kernel", "FullyConnected, computed in int4"),
        ("matmul", 4, [layer("MatMul", precision="float32")],
         "storage only", "MatMul in float32"),
        ("matmul", 4, [layer("DequantizeLinear", "other"), layer("MatMul", precision="float32")],
         "storage only", "MatMul in float32; decoded at every inference"),
        ("matmul", 4, [layer("QGemm")], "int8 kernel", "QGemm; unpacked before any inference"),
        ("matmul", 4, [layer("Reorder", "other")],
         "float kernel", "no node of its own; what ran: Reorder"),
        ("max pool", 32, [layer("MaxPool", "other", "float32")], "float kernel", ""),
    ],
)  # fmt: skip
def test_what_layers_say(
    op: str, bits: int, layers: list[LayerRecord], verdict: str, reason: str
) -> None:
    assert judge(op, bits, layers) == (verdict, reason)


def test_an_operator_that_nothing_probes_is_our_own_mistake() -> None:
    with pytest.raises(ValueError, match="'odd' is not probed"):
        judge("odd", 8, [])
