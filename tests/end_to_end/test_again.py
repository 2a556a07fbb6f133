"""A second call reuses what is the same, and redoes exactly what depends on a change."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import edgekd
from edgekd.core.progress import Silent
from edgekd.report.model import Report
from tests.end_to_end.conftest import IMAGES

if TYPE_CHECKING:
    from tests.end_to_end.conftest import Finished

#: differs from call to call even where nothing was done
MOMENTS = {"created_utc", "environment", "stages", "command"}


class Spoken(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        self.lines.append(message)


def lasting(report: Report) -> dict[str, Any]:
    return report.model_dump(exclude=MOMENTS)


def test_the_same_call_does_nothing_again(images: Finished, images_again: Path) -> None:
    report = edgekd.compress(IMAGES, out=images_again)
    assert {(stage.reused, stage.reason) for stage in report.stages} == {(True, "same")}
    assert lasting(report) == lasting(images.report)


def test_a_changed_training_redoes_what_depends_on_it_and_says_why(
    images: Finished, images_again: Path
) -> None:
    progress = Spoken()
    report = edgekd.compress(
        IMAGES, out=images_again, overrides=["distill.epochs=13"], progress=progress
    )
    stages = {stage.name: stage for stage in report.stages}
    reused = {name for name, stage in stages.items() if stage.reused}
    assert reused == {
        "teacher", "teacher_score",
        "export/teacher/onnxruntime-float-1t-b1", "export/teacher/openvino-float-1t-b1",
        "memory/teacher@onnxruntime-float-1t-b1", "memory/teacher@openvino-float-1t-b1",
    }  # fmt: skip
    for name in ("control/seed-0", "distilled/seed-0"):
        assert stages[name].reason == "train.epochs changed: 12 -> 13"
        assert f"{name}: train.epochs changed: 12 -> 13" in progress.lines
    for name in ("post_training/seed-0", "export/artifact/x86-onnxruntime-int8"):
        assert stages[name].reason.startswith("student changed: ")
    assert stages["proof/x86-openvino-int8"].reason.startswith("artifact changed: ")
    assert stages["profile"].reason.startswith("files.")
    assert report.hashes["teacher"] == images.report.hashes["teacher"]
    assert report.command.endswith(f"--set distill.epochs=13 --out {images_again}")

    # and back: nothing was lost
    back = edgekd.compress(IMAGES, out=images_again)
    assert all(stage.reused for stage in back.stages)
    assert lasting(back) == lasting(images.report)


def test_a_changed_budget_measures_nothing_again(images_again: Path) -> None:
    report = edgekd.compress(IMAGES, out=images_again, budgets=["p90<=0.00001ms"])
    assert all(stage.reused for stage in report.stages)
    assert not report.met
    assert report.closest is not None
    assert report.closest.startswith("closest: p90 ")


def test_a_checkpoint_interval_is_no_change(images_again: Path) -> None:
    recipe = copy.deepcopy(IMAGES)
    recipe["distill"]["checkpoint_every_s"] = 5
    recipe["quantize"]["train"]["checkpoint_every_s"] = 5
    recipe["teacher"]["train"]["checkpoint_every_s"] = 5
    report = edgekd.compress(recipe, out=images_again)
    assert [stage.name for stage in report.stages if not stage.reused] == []


def test_fewer_targets_keep_what_was_trained(images: Finished, images_again: Path) -> None:
    report = edgekd.compress(IMAGES, out=images_again, targets=["x86-openvino-int8"])
    redone = {stage.name: stage.reason for stage in report.stages if not stage.reused}
    # what is timed in one go has changed, nothing else
    assert list(redone) == ["profile"]
    assert [t.target for t in report.targets] == ["x86-openvino-int8"]
    assert report.targets[0].accuracy == images.report.targets[1].accuracy
