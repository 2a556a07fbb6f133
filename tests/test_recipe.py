from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgekd.core.errors import RecipeError
from edgekd.recipe import load_recipe
from edgekd.recipes import builtin_names, builtin_text

MINIMAL: dict[str, Any] = {
    "name": "mine",
    "data": "digits",
    "teacher": {"family": {"name": "resnet"}},
    "student": {"name": "resnet", "widths": [8], "depths": [1]},
    "targets": ["x86-onnxruntime-int8"],
}


def refused(source: Any, text: str, **more: Any) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(source, **more)
    assert caught.value.exit_code == 2
    assert text in str(caught.value)


@pytest.mark.parametrize("name", builtin_names())
def test_a_built_in_recipe_is_valid_and_commented(name: str) -> None:
    recipe, _ = load_recipe(name)
    assert recipe.name == name
    assert builtin_text(name).count("#") >= 8


def test_what_is_written_back_is_the_same_recipe() -> None:
    recipe, _ = load_recipe("digits")
    again, _ = load_recipe(recipe.as_written())
    assert again == recipe


def test_an_override_changes_one_field_by_its_path() -> None:
    plain, _ = load_recipe("digits")
    changed, _ = load_recipe(
        "digits",
        overrides=["distill.epochs=5", "distill.objectives.1.temperature=2.5", "data.test=0.3"],
    )
    assert (plain.distill.epochs, changed.distill.epochs) == (60, 5)
    assert changed.distill.objectives[1].temperature == 2.5  # type: ignore[attr-defined]
    assert changed.distill.objectives[0] == plain.distill.objectives[0]
    assert changed.as_written()["data"]["test"] == 0.3


def test_a_short_form_can_be_overridden_too() -> None:
    changed, _ = load_recipe(MINIMAL, overrides=["data.test=0.3"])
    assert changed.as_written()["data"]["name"] == "digits"
    assert changed.as_written()["data"]["test"] == 0.3


def test_a_budget_replaces_the_one_on_the_same_figure() -> None:
    recipe, _ = load_recipe("digits", budgets=["p90<=0.5ms", "p99<=3ms"])
    assert {b.name: b.limit for b in recipe.budgets} == {
        "p90": 0.5,
        "p99": 3.0,
        "size": 128 * 1024,
        "peak_memory": 512,
        "accuracy_drop": 1,
    }


def test_targets_are_replaced() -> None:
    recipe, _ = load_recipe("digits", targets=["x86-openvino-fp32"])
    assert recipe.targets == ("x86-openvino-fp32",)


def test_relative_paths_start_at_the_recipes_folder(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "my.yaml"
    path.parent.mkdir()
    path.write_text(builtin_text("digits"))
    _, folder = load_recipe(path)
    assert folder == path.parent


def test_a_file_without_a_name_is_called_as_the_file(tmp_path: Path) -> None:
    path = tmp_path / "kitchen.yaml"
    path.write_text(builtin_text("digits").replace("name: digits\n", "", 1))
    assert load_recipe(path)[0].name == "kitchen"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"epochs": 3}, "epochs: no such field"),
        ({"sed": 1}, "sed: no such field. Did you mean 'seed'?"),
        ({"seeds": 0}, "seeds: Input should be greater than or equal to 1, got 0"),
        ({"student": "resnett"}, "student.name: No student family named 'resnett'. Did you mean"),
        ({"student": {"name": "resnet", "width": [8]}}, "student.width: no such field. Did you"),
        ({"data": {"name": "digits", "test": 2.0}}, "data.test: "),
        ({"data": {"folder": "x"}}, "data.name: a data source needs its name, one of "),
        ({"distill": {"epoch": 3}}, "distill.epoch: no such field. Did you mean 'epochs'?"),
        (
            {"distill": {"objectives": [{"name": "logits_kl", "temprature": 2}]}},
            "distill.objectives.0.temprature: no such field. Did you mean 'temperature'?",
        ),
        ({"distill": {"objectives": []}}, "distill.objectives: "),
        ({"quantize": {"weights": {"name": "minmax", "bits": 1}}}, "quantize.weights.bits: "),
        ({"budgets": ["p91<=2ms"]}, "budgets.0: no budget named 'p91'. Did you mean 'p9"),
        ({"budgets": ["p90<=2kg"]}, "budgets.0: p90 is not given in 'kg'"),
        ({"budgets": ["p90<=2ms", "p90<=3ms"]}, "budgets: more than one budget on p90"),
        ({"targets": []}, "targets: "),
        ({"targets": ["x86-onnxruntim-int8"]}, "Did you mean 'x86-onnxruntime-int8'?"),
        ({"targets": ["x86-openvino-int8"] * 2}, "targets: a target is named twice"),
        ({"name": "../escape"}, "name: "),
        ({"teacher": {}}, "teacher"),
    ],
)
def test_a_wrong_field_is_named_with_its_path(change: dict[str, Any], text: str) -> None:
    refused(MINIMAL | change, text)


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("distill.epochs", "is not an override"),
        ("distill.objectives.7.weight=1", "distill.objectives is a list"),
        ("seed.deep=1", "seed: "),
        ("distill.epochs=many", "distill.epochs: "),
        ("distill.epochs=[1", "is not YAML"),
    ],
)
def test_a_wrong_override_is_refused(override: str, text: str) -> None:
    refused("digits", text, overrides=[override])


def test_an_unknown_built_in_names_the_nearest() -> None:
    refused("digit", "No built-in recipe named 'digit'. Did you mean 'digits'?")


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    refused(tmp_path / "none.yaml", "There is no file")


def test_a_repeated_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "twice.yaml"
    path.write_text("name: a\nname: b\n")
    refused(path, "gives a key twice")


def test_a_recipe_cannot_run_code(tmp_path: Path) -> None:
    path = tmp_path / "evil.yaml"
    path.write_text("name: !!python/object/apply:os.system ['touch pwned']\n")
    refused(path, "is not YAML that edgekd reads")
    assert not (tmp_path / "pwned").exists()
