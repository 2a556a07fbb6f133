"""verdict.json is a contract: what an earlier edgekd wrote must stay readable and valid."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError

from edgekd.report.model import Report, TargetResult
from edgekd.report.verdict import ArtifactVerdict, Verdict, json_schema, verdict

DATA = Path(__file__).parent.parent / "data"


def refuse(constant: str) -> Any:
    raise AssertionError(f"{constant} is not JSON")


def strict(text: str) -> Any:
    return json.loads(text, parse_constant=refuse)


def test_golden_file_keeps_validating_and_reads_back_unchanged() -> None:
    text = (DATA / "verdict-v1.json").read_text(encoding="utf-8")
    jsonschema.Draft202012Validator(json_schema()).validate(strict(text))
    assert Verdict.model_validate_json(text).to_json() == text


def test_the_published_schema_is_the_golden_one() -> None:
    golden = strict((DATA / "verdict-v1.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(golden)
    assert json_schema() == golden


def test_fields_of_the_contract(met_report: Report) -> None:
    written = strict(verdict(met_report).to_json())
    assert list(written) == ["schema", "met", "targets"]
    assert (written["schema"], written["met"]) == ("edgekd.verdict/1", True)
    target = written["targets"][0]
    assert list(target) == [
        "target", "met", "budgets", "latency_ms", "size_bytes", "peak_memory_mib", "accuracy",
        "kernels", "parity", "artifact",
    ]  # fmt: skip
    assert target["budgets"][1] == {
        "name": "size", "limit": 65536.0, "unit": "bytes", "value": 28672.0, "met": True,
        "reason": None,
    }  # fmt: skip
    assert list(target["latency_ms"]) == ["p50", "p90", "p95", "p99"]
    assert set(target["latency_ms"]["p90"]) == {"certified", "empirical", "n", "reason"}
    assert target["accuracy"] == {
        "teacher": 0.98889, "control": 0.97593, "student_float": 0.98796, "artifact": 0.98611,
    }  # fmt: skip
    assert target["kernels"] == {"int8": 10, "float": 0, "unfused": 0}
    assert target["parity"] == {"max_abs": 0.0918, "mean_abs": 4.12e-4, "agreement": 1.0}
    assert target["artifact"]["path"] == "artifacts/x86-onnxruntime-int8/model.onnx"
    assert len(target["artifact"]["sha256"]) == 64


def test_what_is_refused_is_null_with_a_reason(
    make_target: Callable[..., TargetResult], make_report: Callable[..., Report]
) -> None:
    target = make_target(n=300, memory=None, budgets=("p99<=1ms", "peak_memory<=1GiB"))
    written = strict(verdict(make_report((target,))).to_json())["targets"][0]
    assert written["met"] is False
    p99 = written["latency_ms"]["p99"]
    assert (p99["certified"], p99["reason"]) == (None, "needs 662 samples, has 300")
    assert written["peak_memory_mib"] is None
    assert [(b["value"], b["met"]) for b in written["budgets"]] == [(None, False)] * 2
    assert all(b["reason"] for b in written["budgets"])


def test_every_report_gives_a_valid_verdict(missed_report: Report) -> None:
    hostile = missed_report.targets[1]
    inside = hostile.measured.model_copy(update={"artifact": "artifacts/odd/model.onnx"})
    targets = (missed_report.targets[0], hostile.model_copy(update={"measured": inside}))
    report = missed_report.model_copy(update={"targets": targets})
    written = strict(verdict(report).to_json())
    jsonschema.Draft202012Validator(json_schema()).validate(written)
    assert written["targets"][1]["target"] == hostile.target


@pytest.mark.parametrize("path", ["/abs/model.onnx", "../model.onnx", "a/../../model.onnx"])
def test_an_artifact_outside_the_run_is_refused(path: str) -> None:
    with pytest.raises(ValidationError, match="relative to the run folder"):
        ArtifactVerdict(path=path, sha256="0" * 64)


def test_a_reader_ignores_what_a_later_version_adds() -> None:
    written = strict((DATA / "verdict-v1.json").read_text(encoding="utf-8"))
    written["energy_mj"] = 1.5
    written["targets"][0]["tags"] = ["new"]
    assert Verdict.model_validate(written).schema_name == "edgekd.verdict/1"


def test_another_schema_is_not_read_as_this_one() -> None:
    written = strict((DATA / "verdict-v1.json").read_text(encoding="utf-8"))
    written["schema"] = "edgekd.verdict/2"
    with pytest.raises(ValidationError, match=r"edgekd\.verdict/1"):
        Verdict.model_validate(written)
