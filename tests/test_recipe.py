from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgekd.core.config import dump_yaml
from edgekd.core.errors import RecipeError
from edgekd.core.target import load_target
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
        "accuracy_drop": 3,
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
    ("file", "name"),
    [("my kitchen.yaml", "my-kitchen"), ("büro №1.yml", "b-ro-1"), ("—.yaml", "recipe")],
)
def test_a_file_whose_name_no_run_can_have_still_gives_one(
    file: str, name: str, tmp_path: Path
) -> None:
    (tmp_path / file).write_text(builtin_text("digits").replace("name: digits\n", "", 1))
    assert load_recipe(tmp_path / file)[0].name == name


def test_one_changed_field_of_the_training_through_the_rounding_keeps_the_others() -> None:
    plain = load_recipe(MINIMAL)[0].quantize.train
    changed = load_recipe(MINIMAL, overrides=["quantize.train.epochs=3"])[0].quantize.train
    assert changed == plain.model_copy(update={"epochs": 3})
    assert (plain.epochs, plain.learning_rate, plain.precision) == (10, 0.01, "float32")


def target_file(folder: Path, name: str) -> Path:
    folder.mkdir(exist_ok=True)
    values = load_target("x86-openvino-int8").model_dump(mode="json") | {"name": name}
    (folder / f"{name}.yaml").write_text(dump_yaml(values))
    return folder / f"{name}.yaml"


def test_a_targets_path_starts_at_the_recipes_folder(tmp_path: Path) -> None:
    path = target_file(tmp_path / "recipes", "mine")
    values = MINIMAL | {"targets": ["mine.yaml", "./../recipes/mine2.yaml", "x86-openvino-int8"]}
    second = target_file(tmp_path / "recipes", "mine2")
    (tmp_path / "recipes" / "r.yaml").write_text(dump_yaml(values))
    recipe, folder = load_recipe(tmp_path / "recipes" / "r.yaml")
    assert recipe.targets[0] == str(path)
    assert Path(recipe.targets[1]).samefile(second)
    assert recipe.targets[2] == "x86-openvino-int8"
    assert folder == tmp_path / "recipes"


def test_a_targets_path_on_the_command_line_starts_at_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target_file(tmp_path, "mine")
    monkeypatch.chdir(tmp_path)
    assert load_recipe("digits", targets=["mine.yaml"])[0].targets == ("mine.yaml",)


def test_two_targets_of_one_name_are_refused(tmp_path: Path) -> None:
    mine = target_file(tmp_path, "x86-openvino-int8")
    targets = ["x86-openvino-int8", str(mine)]
    refused(MINIMAL | {"targets": targets}, "Two targets have the same name, 'x86-openvino-int8'")


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
        ({"targets": "x86-openvino-int8"}, "targets: should be a list, written [a, b] or"),
        ({"budgets": "p90<=2ms"}, "budgets: should be a list"),
        ({"targets": ["x86-onnxruntim-int8"]}, "Did you mean 'x86-onnxruntime-int8'?"),
        ({"targets": ["x86-openvino-int8"] * 2}, "targets: a target is named twice"),
        ({"name": "../escape"}, "name: "),
        ({"teacher": {}}, "teacher"),
    ],
)
def test_a_wrong_field_is_named_with_its_path(change: dict[str, Any], text: str) -> None:
    refused(MINIMAL | change, text)


@pytest.mark.parametrize("budgets", ["p90<=2ms", 5, {"p90": "2ms"}])
def test_budgets_that_are_no_list_are_refused_once(budgets: Any) -> None:
    text = "the recipe is not valid.\n  got:      budgets: should be a list"
    refused(MINIMAL | {"budgets": budgets}, text, budgets=["p50<=1ms"])


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


def test_a_name_that_no_file_can_have_is_unknown_too() -> None:
    refused("x" * 5000, "No built-in recipe named 'xxx")


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
