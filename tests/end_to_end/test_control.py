"""Quantized distillation beside its control arm, through whole runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from edgekd.core.errors import RecipeError
from edgekd.distill.objectives._contract import OBJECTIVES
from edgekd.report import html
from edgekd.steps.tune import with_teacher
from tests.end_to_end.conftest import Finished

Compress = Callable[..., Finished]


def quantize(**fields: Any) -> dict[str, Any]:
    return {
        "weights": {"name": "minmax", "bits": 3},
        "train": {"epochs": 4, "batch_size": 16, "learning_rate": 0.05},
        "stop_after": 2,
        **fields,
    }


def test_few_bits_have_a_control_arm(compress_vectors: Compress) -> None:
    run = compress_vectors(quantize=quantize())
    names = [arm.name for arm in run.report.arms]
    assert names == [
        "control", "distilled", "post_training", "quantized_control", "quantized_distillation",
    ]  # fmt: skip
    stages = run.stages()
    assert len(stages["quantized_control/seed-0"]["result"]["history"]) == 4
    assert stages["quantized_control/seed-0"]["needs"]["teacher"] is None
    # 8 bits have none, unless it is asked for
    whole = compress_vectors(quantize={"train": {"epochs": 1, "batch_size": 16}})
    assert "quantized_control" not in [arm.name for arm in whole.report.arms]


@pytest.mark.slow
def test_distillation_that_hurts_is_stopped_and_its_control_kept(
    compress_vectors: Compress,
) -> None:
    untrained = {
        "family": {"name": "mlp", "widths": [16]},
        "train": {"epochs": 1, "batch_size": 16, "learning_rate": 1e-9},
    }
    alone = [{"name": "logits_kl", "weight": 1.0, "temperature": 5.0}]
    longer = {"epochs": 6, "batch_size": 16, "learning_rate": 0.05}
    run = compress_vectors(teacher=untrained, quantize=quantize(objectives=alone, train=longer))
    arms = {arm.name: arm for arm in run.report.arms}
    given_up = arms["quantized_distillation"]
    assert given_up.chosen_seed is None
    assert given_up.note.startswith("stopped after epoch 4 of 6: the control arm")
    assert len(run.stages()["quantized_distillation/seed-0"]["result"]["history"]) == 4
    kept = next(a for a in run.report.arms[2:] if a.chosen_seed is not None)
    assert "distillation was stopped after epoch 4" in kept.note
    assert any("stopped after epoch 4" in text for text in run.report.warnings)
    assert "stopped after epoch 4" in html.render(run.report)


@pytest.mark.slow
def test_temperature_and_weight_are_tried_at_the_bits_and_flips_are_frozen(
    compress_vectors: Compress,
) -> None:
    run = compress_vectors(
        quantize=quantize(
            tune={"temperatures": [1, 5], "weights": [0.5, 1.0]}, freeze_oscillating={}
        )
    )
    trials = {name: s for name, s in run.stages().items() if name.startswith("tune/")}
    assert len(trials) == 2 * 2 + 1
    losses = {
        name.split("/")[1]: trial["result"]["validation_loss"] for name, trial in trials.items()
    }
    del losses["labels-alone"]
    best = min(losses, key=lambda name: losses[name])
    objectives = run.stages()["quantized_distillation/seed-0"]["needs"]["objectives"]
    (teacher,) = [o for o in objectives if o["name"] == "logits_kl"]
    assert best == f"T-{teacher['temperature']:g}-weight-{teacher['weight']:g}"
    note = run.report.arms[-1].note
    assert "has the least validation loss after 1 epochs" in note
    assert "labels alone: " in note
    assert "of the weights oscillate at the end" in note


def test_the_terms_of_labels_get_the_rest() -> None:
    labels, teacher = (OBJECTIVES.build(name) for name in ("hard_label", "logits_kl"))
    found = with_teacher((labels, teacher), 3.0, 0.75)
    assert [o.weight for o in found] == [0.25, 0.75]
    assert [getattr(o, "temperature", None) for o in found] == [None, 3.0]
    assert len(with_teacher((labels, teacher), 3.0, 1.0)) == 1


def test_a_grid_needs_something_to_tune(compress_vectors: Compress) -> None:
    with pytest.raises(RecipeError, match="tune needs an objective with a temperature"):
        compress_vectors(quantize=quantize(tune={}, objectives=["hard_label"]))


@pytest.mark.parametrize("field", ["tune", "freeze_oscillating"])
def test_settings_of_a_training_need_one(compress_vectors: Compress, field: str) -> None:
    with pytest.raises(RecipeError, match=f"{field} needs method: quantized_distillation"):
        compress_vectors(quantize={"method": "post_training", field: {}})
