"""What one run leaves: every file valid, every claim checked by other means than its own."""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgekd.recipe import load_recipe
from edgekd.report.model import Report
from edgekd.report.verdict import json_schema, verdict
from tests.end_to_end.conftest import IMAGES

if TYPE_CHECKING:
    from pathlib import Path

    from edgekd.report.model import Measured, TargetResult
    from tests.end_to_end.conftest import Finished

#: convolutions and matrix products of the student: stem, two of the block, head
MATMULS = 4
#: a fifth of the 1,797 digits
TEST = 359
FLOAT_ARMS, INTEGER_ARMS = ["control", "distilled"], ["post_training", "quantized_distillation"]


def strict(text: str) -> Any:
    def refuse(constant: str) -> Any:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def measured_files(report: Report) -> list[Measured]:
    return [m for t in report.targets for m in (t.measured, t.baseline) if m is not None]


def test_the_folder_holds_what_a_user_takes_away(images: Finished) -> None:
    assert sorted(p.name for p in images.folder.iterdir()) == [
        "artifacts", "ledger.jsonl", "lock", "recipe.yaml", "report.html", "report.json",
        "stages", "teacher_outputs", "verdict.json",
    ]  # fmt: skip
    assert sorted(p.name for p in (images.folder / "artifacts").iterdir()) == [
        "x86-onnxruntime-int8.onnx",
        "x86-openvino-int8.onnx",
    ]
    assert list(images.folder.rglob("*.partial")) == []


def test_report_json_is_the_report(images: Finished) -> None:
    text = (images.folder / "report.json").read_text()
    assert Report.model_validate_json(text) == images.report
    assert strict(text)["schema_name"] == "edgekd.report/1"


def test_verdict_json_keeps_its_schema(images: Finished) -> None:
    import jsonschema

    written = strict((images.folder / "verdict.json").read_text())
    jsonschema.Draft202012Validator(json_schema()).validate(written)
    assert written == strict(verdict(images.report).to_json())
    assert written["met"] is True
    assert [t["target"] for t in written["targets"]] == IMAGES["targets"]
    for target in written["targets"]:
        assert [b["name"] for b in target["budgets"]] == [
            "p90", "size", "peak_memory", "accuracy_drop",
        ]  # fmt: skip
        assert target["latency_ms"]["p90"]["certified"] > 0
        artifact = images.folder / target["artifact"]["path"]
        assert sha256(artifact) == target["artifact"]["sha256"]
        assert artifact.stat().st_size == target["size_bytes"]


def test_the_page_loads_nothing(images: Finished) -> None:
    page = (images.folder / "report.html").read_text()
    assert len(page) < 2_000_000
    assert "<script" not in page
    assert re.findall(r"""(?:src|href|action)\s*=\s*["'](?!#|data:)[^"']*""", page) == []
    assert re.findall(r"url\(|@import", page) == []
    for target in images.report.targets:
        assert target.measured.sha256[:12] in page


def test_the_recipe_is_kept_as_it_ran(images: Finished) -> None:
    recipe, _ = load_recipe(images.folder / "recipe.yaml")
    assert recipe == load_recipe(IMAGES)[0]
    assert images.report.recipe == recipe.as_written()


@pytest.mark.parametrize("index", [0, 1], ids=IMAGES["targets"])
def test_every_convolution_and_matrix_product_is_int8(images: Finished, index: int) -> None:
    target = images.report.targets[index]
    assert (target.kernels.int8, target.kernels.float) == (MATMULS, 0)
    roles = [layer["role"] for layer in target.layers]
    assert roles.count("matmul") == MATMULS
    # a quantization left standing behind the global pool costs a few vectors, not a kernel
    assert roles.count("requantize") == target.kernels.unfused <= 1
    assert images.report.skipped == {}


@pytest.mark.parametrize("index", [0, 1], ids=IMAGES["targets"])
def test_the_ladder_is_climbed_rung_by_rung(images: Finished, index: int) -> None:
    target = images.report.targets[index]
    assert [(rung.name, rung.against) for rung in target.ladder] == [
        ("torch float", None),
        ("torch fake-quant", "torch float"),
        ("ONNX reference", "torch fake-quant"),
        (target.target, "torch fake-quant"),
    ]
    assert [rung.ok for rung in target.ladder] == [None, None, True, True]
    assert [rung.n for rung in target.ladder] == [TEST, TEST, 8, TEST]
    last = target.ladder[-1]
    assert target.parity.agreement == last.agreement
    assert target.accuracy.artifact == last.score
    # the same integers: single roundings differ, which only flips what is almost a tie
    assert target.parity.agreement >= 0.99


def predictions(run: Finished, target: TargetResult, samples: np.ndarray) -> np.ndarray:
    """Decisions of a delivered file, through the runtime's own interface, as the report says."""
    path = run.folder / target.measured.artifact
    if target.backend == "onnxruntime":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        for name, value in target.options.items():
            options.add_session_config_entry(name, str(value))
        providers = ["CPUExecutionProvider"]
        session = onnxruntime.InferenceSession(path, options, providers=providers)
        rows = [session.run(None, {"input": x[None]})[0][0] for x in samples]
    else:
        import openvino

        model = openvino.Core().compile_model(path, "CPU", target.options)
        rows = [model({"input": x[None]})[0][0] for x in samples]
    return np.argmax(rows, axis=1)


@pytest.mark.parametrize("index", [0, 1], ids=IMAGES["targets"])
def test_the_delivered_file_is_as_accurate_as_claimed(images: Finished, index: int) -> None:
    recipe, folder = load_recipe(IMAGES)
    test = recipe.data.load(folder).test
    decided = predictions(images, images.report.targets[index], test.batch(np.arange(len(test))))
    claimed = images.report.targets[index].accuracy.artifact
    # one sample may fall the other way where a session's options differ from the target's
    assert abs((decided == test.labels).mean() - claimed) <= 1 / len(test)


def test_every_figure_follows_from_the_raw_samples(images: Finished) -> None:
    from scipy.stats import binom

    for measured in measured_files(images.report):
        raw = json.loads((images.folder / measured.profile).read_text())
        samples = sorted(raw["samples_ns"])
        assert raw["source"] == measured.source == "measured"
        assert raw["artifact_sha256"] == measured.sha256
        assert sha256(images.folder / measured.artifact) == measured.sha256
        p90 = measured.latency_ms.p90
        assert p90.n == len(samples) >= 64
        # the smallest order statistic that at least 99 of 100 repetitions put above the true p90
        rank = next(k for k in range(1, p90.n + 1) if binom.cdf(k - 1, p90.n, 0.9) >= 0.99)
        assert p90.certified == samples[rank - 1] / 1e6
        assert (p90.n >= 662) == (measured.latency_ms.p99.certified is not None)


def test_both_runtimes_and_all_files_were_measured_in_one_go(images: Finished) -> None:
    for target in images.report.targets:
        assert target.baseline is not None
        assert target.baseline.name == f"teacher@{target.backend}-float-1t-b1"
        assert target.baseline.conditions == target.measured.conditions
        assert target.measured.conditions.interleaved_with == 5
        assert target.speedup_p90 == pytest.approx(
            target.baseline.latency_ms.p90.certified / target.measured.latency_ms.p90.certified
        )
        assert target.measured.peak_memory_mib > target.measured.runtime_memory_mib > 1


def test_every_arm_is_there_and_choices_follow_validation(images: Finished) -> None:
    arms = {arm.name: arm for arm in images.report.arms}
    assert list(arms) == FLOAT_ARMS + INTEGER_ARMS
    for arm in arms.values():
        assert len(arm.scores) == len(arm.validation) == 1
        assert arm.note
    for pair in (FLOAT_ARMS, INTEGER_ARMS):
        kept, other = sorted((arms[name] for name in pair), key=lambda a: a.chosen_seed is None)
        assert (kept.chosen_seed, other.chosen_seed) == (0, None)
        # never the worse one by more than chance: two standard errors of a 287-sample split
        assert kept.validation[0] >= other.validation[0] - 2 * (0.25 / 287) ** 0.5


def test_sizes_and_ratios_are_those_of_the_files(images: Finished) -> None:
    report = images.report
    largest = max(t.measured.size_bytes for t in report.targets)
    assert report.teacher.float_bytes is not None
    assert report.student_size_ratio == report.teacher.float_bytes / largest
    assert report.teacher.parameters > report.student.parameters > 0
    assert report.macs_ratio == pytest.approx(report.teacher.macs / report.student.macs)


def test_stages_are_recorded_in_order(images: Finished) -> None:
    names = [stage.name for stage in images.report.stages]
    # where the CPU makes the two targets want different integers, the arms stand there twice
    assert list(dict.fromkeys(names))[:8] == [
        "teacher", "teacher_score", "control/seed-0", "distilled/seed-0", "post_training/seed-0",
        "quantized_distillation/seed-0", "export/artifact/x86-onnxruntime-int8",
        "export/artifact/x86-openvino-int8",
    ]  # fmt: skip
    assert names.index("proof/x86-openvino-int8") < names.index("profile")
    last = {name.partition("/")[0] for name in names[names.index("profile") + 1 :]}
    assert last == {"memory", "layers"}
    assert {(stage.reused, stage.reason) for stage in images.report.stages} == {
        (False, "first time")
    }
    done = images.stages()
    assert set(done) == set(names)
    for event in done.values():
        folder = images.folder / "stages" / f"{event['name'].replace('/', '.')}-{event['key']}"
        assert {n: sha256(folder / n) for n in event["files"]} == event["files"]


def test_hashes_and_versions_are_recorded(images: Finished) -> None:
    hashes = images.report.hashes
    assert set(hashes) == {
        "recipe", "data", "teacher", "student (x86-onnxruntime-int8)",
        "student (x86-openvino-int8)",
    }  # fmt: skip
    assert all(re.fullmatch("[0-9a-f]{64}", value) for value in hashes.values())
    assert {"torch", "onnxruntime", "openvino"} <= set(images.report.environment["versions"])
