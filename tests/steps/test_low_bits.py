from __future__ import annotations

import onnx
import pytest

from edgekd.core.progress import Silent
from edgekd.core.target import load_target
from edgekd.profile.probe import CheckUp, ProbeRow, runtime_problem
from edgekd.steps.low_bits import low_bit_cases, low_bit_model, with_low_bits

INT8, FLOAT = load_target("x86-onnxruntime-int8"), load_target("x86-onnxruntime-fp32")
SEEN = ProbeRow(op="linear", bits=8, granularity="per_channel", verdict="int8 kernel")


def checked(name: str) -> tuple[ProbeRow, ...]:
    target = load_target(name)
    start = runtime_problem(target).model_copy(update={"rows": (SEEN,)})
    first, *rows = with_low_bits(start, target, Silent()).rows
    assert first is SEEN
    return tuple(rows)


def verdicts(rows: tuple[ProbeRow, ...]) -> dict[tuple[str, int, str, str], str]:
    found = {(r.op, r.bits, r.stored, r.granularity): r.verdict for r in rows}
    assert len(found) == len(rows)
    return found


def test_every_probe_is_a_valid_model_that_holds_its_bits() -> None:
    assert INT8.scheme is not None
    cases = low_bit_cases(INT8)
    assert {c.bits for c in cases} == {2, 4, 8}
    assert {c.stored for c in cases} == {"packed", "native"}
    assert {c.granularity for c in cases} == {"per_channel", "per_block"}
    for case in cases:
        model = onnx.load_from_string(low_bit_model(case, INT8.scheme))
        onnx.checker.check_model(model, full_check=True)
        (codes,) = (i for i in model.graph.initializer if i.name == "layer.codes")
        weights = 32 * 32 * 9 if case.op == "conv 3x3" else 32 * 64
        assert len(codes.raw_data) == weights * case.bits // 8


def test_onnx_runtime_as_measured() -> None:
    rows = checked(INT8.name)
    found = verdicts(rows)
    for op in ("conv 3x3", "linear"):
        for bits in (4, 2):
            assert found[op, bits, "packed", "per_channel"] == "int8 kernel"
            assert found[op, bits, "packed", "per_block"] == "storage only"
            # a newer runtime may get a kernel; a student's file needs one that loads it
            assert found[op, bits, "native", "per_channel"] != "refused"
    native = [r for r in rows if r.stored == "native" and r.verdict == "storage only"]
    assert native
    assert all("decoded at every inference" in r.reason for r in native)
    packed = [r for r in rows if r.stored == "packed"]
    assert not any("every inference" in r.reason for r in packed)


@pytest.mark.slow
def test_openvino_as_measured() -> None:
    rows = checked("x86-openvino-int8")
    found = verdicts(rows)
    assert {r.reason for r in rows if r.verdict == "refused"} <= {"Unsupported type"}
    for op in ("conv 3x3", "linear"):
        assert found[op, 2, "packed", "per_channel"] == "int8 kernel"
        assert found[op, 2, "packed", "per_block"] == "storage only"
        assert found[op, 4, "native", "per_channel"] != "refused"


def test_float_targets_and_such_as_refuse_everything_are_left_alone() -> None:
    assert low_bit_cases(FLOAT) == []
    refused = SEEN.model_copy(update={"verdict": "refused"})
    start = CheckUp(target="x", backend="onnxruntime", version="1", rows=(refused,))
    assert with_low_bits(start, INT8, Silent()) is start
