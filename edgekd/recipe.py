"""The recipe: what a user wants done. Joins the sections that every stage defines for itself."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from edgekd.core.budget import BudgetText
from edgekd.core.config import Config, load_yaml, nearest, parse_yaml, validate
from edgekd.core.errors import RecipeError
from edgekd.core.target import load_target
from edgekd.distill.objectives._contract import ObjectiveField
from edgekd.distill.settings import TrainSettings
from edgekd.distill.teacher import TeacherSection
from edgekd.profile.measure import MeasureRule
from edgekd.profile.transports._contract import transport_of
from edgekd.quantize.settings import QuantizeSettings
from edgekd.recipes import builtin_names, builtin_text
from edgekd.students._contract import FamilyField
from edgekd.tasks._contract import SourceField, TaskField

_Objectives = Annotated[tuple[ObjectiveField, ...], Field(min_length=1)]
#: a trained student needs smaller steps than random weights, and no autocast between its grids
_FINE_TUNING = {
    "epochs": 10,
    "learning_rate": 0.01,
    "weight_decay": 0.0,
    "warmup_epochs": 0.5,
    "clip_norm": 1.0,  # without batch norm one bad step is not forgiven
    "precision": "float32",
}


class DistillSection(TrainSettings):
    """How the student learns: a training, and what it listens to.

    Attributes:
        objectives: Terms of the loss. The control arm trains the same way on `hard_label` alone.
    """

    objectives: _Objectives = Field(default=("hard_label", "logits_kl"), validate_default=True)


class TuneSection(Config):
    """Temperatures and weights of the teacher that are tried at the bits they are for.

    Attributes:
        temperatures: Of every objective that has one.
        weights: Of the same; what listens to labels alone gets the rest of 1.
        epochs: Of each trial; the first seed trains once for every pair, and once on labels.
    """

    temperatures: Annotated[
        tuple[Annotated[float, Field(gt=0, le=1000)], ...], Field(min_length=1)
    ] = (1.0, 2.0, 5.0)
    weights: Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(min_length=1)] = (
        0.3,
        0.7,
    )
    epochs: Annotated[int, Field(ge=1)] = 1


class QuantizeSection(QuantizeSettings):
    """How the float student becomes integers.

    Attributes:
        train: The training through the rounding, from the trained float student. Its defaults are
            those of a fine-tuning: 10 epochs, rate 0.01, no weight decay, half an epoch of
            warm-up, gradients clipped at norm 1, float32.
        objectives: What it listens to. The default keeps the temperature at 1: higher ones help
            a float student and can destroy one of few bits.
        control: Also train through the rounding on labels alone, to see whether the teacher
            helped; auto is yes where some weights or activations have fewer than 7 bits.
        tune: Choose temperature and weight of the teacher by short trials, on validation loss;
            null to take them from `objectives`.
        stop_after: Epochs in a row that the control arm must be ahead by more than chance, in the
            median of three epochs on the validation split, before the distilled training is given
            up; null for never.
    """

    train: TrainSettings = Field(default={}, validate_default=True)
    objectives: _Objectives = Field(
        default=(
            {"name": "hard_label", "weight": 0.3},
            {"name": "logits_kl", "weight": 0.7, "temperature": 1.0},
        ),
        validate_default=True,
    )

    control: Literal["auto"] | bool = "auto"
    tune: TuneSection | None = None
    stop_after: Annotated[int, Field(ge=1)] | None = 3

    @model_validator(mode="after")
    def _something_to_tune(self) -> Self:
        if self.tune is not None and not any(hasattr(o, "temperature") for o in self.objectives):
            raise ValueError("tune needs an objective with a temperature, such as logits_kl")
        return self

    @model_validator(mode="after")
    def _something_to_train(self) -> Self:
        """Settings that no default brings in, of a training that is not made."""
        for name in ("tune", "freeze_oscillating"):
            if self.method == "post_training" and getattr(self, name) is not None:
                raise ValueError(f"{name} needs method: quantized_distillation")
        return self

    @field_validator("train", mode="before")
    @classmethod
    def _fine_tuning(cls, value: Any) -> Any:
        """One field that the user changes must not bring back the rates of a first training."""
        return {**_FINE_TUNING, **value} if isinstance(value, Mapping) else value


class ParitySection(Config):
    """How the parity ladder is climbed.

    Attributes:
        reference_samples: Test samples run through the slow ONNX reference evaluator.
        runtime_samples: Test samples run through each runtime; null for all of them.
    """

    reference_samples: Annotated[int, Field(ge=1)] = 32
    runtime_samples: Annotated[int, Field(ge=1)] | None = None


class Recipe(Config):
    """Everything `edgekd compress` needs to know.

    Attributes:
        name: Also the run folder's: runs/<name>.
        seed: Start of all randomness; arm k uses seed + k.
        seeds: How often every arm is trained; the report gives mean, best and worst.
        threads: CPU threads of training; null for all cores. Part of what makes a run repeat.
        task: What outputs mean.
        data: Where samples come from.
        teacher: The model to learn from.
        student: The architecture to train.
        distill: The float training.
        quantize: The way to integers.
        targets: Names of shipped targets, or paths of target files; relative ones start at the
            recipe's folder.
        budgets: Limits that every target's artifact must keep.
        profile: How long to measure.
        parity: How much to compare.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    seeds: Annotated[int, Field(ge=1, le=100)] = 3
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    task: TaskField = Field(default="classification", validate_default=True)
    data: SourceField
    teacher: TeacherSection
    student: FamilyField
    distill: DistillSection = DistillSection()
    quantize: QuantizeSection = QuantizeSection()
    targets: Annotated[tuple[str, ...], Field(min_length=1)]
    budgets: tuple[BudgetText, ...] = ()
    profile: MeasureRule = MeasureRule()
    parity: ParitySection = ParitySection()

    @field_validator("targets")
    @classmethod
    def _targets_exist(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) != len(names):
            raise ValueError(f"a target is named twice: {', '.join(names)}")
        return names

    @field_validator("budgets")
    @classmethod
    def _one_budget_a_figure(cls, budgets: tuple[Any, ...]) -> tuple[Any, ...]:
        names = [b.name for b in budgets]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise ValueError(f"more than one budget on {', '.join(twice)}")
        return budgets

    def as_written(self) -> dict[str, Any]:
        """Plain values from which `validate` builds an equal recipe."""
        return self.model_dump(mode="json")


def load_recipe(
    source: str | Path | Mapping[str, Any],
    *,
    overrides: Sequence[str] = (),
    targets: Sequence[str] = (),
    budgets: Sequence[str] = (),
) -> tuple[Recipe, Path]:
    """Read a recipe and the folder its relative paths start at.

    Args:
        source: A built-in name, the path of a YAML file, or the values themselves.
        overrides: ``"distill.epochs=5"``: dotted path and YAML value.
        targets: Replace the recipe's targets; relative paths start at the current folder.
        budgets: Added to the recipe's; one on the same figure replaces it.

    Raises:
        RecipeError: The recipe or an override is wrong.
    """
    values, name, folder = _read(source)
    for override in overrides:
        _set(values, override)
    if targets:
        values["targets"] = list(targets)
    elif isinstance(values.get("targets"), list):
        values["targets"] = [_from_folder(target, folder) for target in values["targets"]]
    kept = values.get("budgets") or []
    if budgets and isinstance(kept, list):  # anything else is refused below
        names = {_budget_name(b) for b in budgets}
        values["budgets"] = [*(b for b in kept if _budget_name(b) not in names), *budgets]
    values.setdefault("name", _default_name(source, folder))
    recipe = validate(Recipe, values, source=name)
    _check_targets(recipe.targets)
    return recipe, folder


def _check_targets(names: Sequence[str]) -> None:
    """A misspelt target must fail here, not after an hour of training."""
    by_name: dict[str, str] = {}
    for name in names:
        loaded = load_target(name)
        transport_of(loaded)
        target = loaded.name
        if target in by_name:
            raise RecipeError(
                f"Two targets have the same name, {target!r}.",
                expected="names of their own, which their files are delivered under",
                got=f"{by_name[target]} and {name}",
                todo="call the file of one of them, and its `name`, otherwise",
            )
        by_name[target] = name


def _from_folder(target: Any, folder: Path) -> Any:
    """The path of a target's file as seen from the current folder; a name as it is."""
    is_path = isinstance(target, str) and ("/" in target or target.endswith((".yaml", ".yml")))
    return str(folder / target) if is_path else target


def _default_name(source: str | Path | Mapping[str, Any], folder: Path) -> str:
    """The recipe's file, or the current folder, as a name that a run folder can have."""
    stem = folder.name if isinstance(source, Mapping) else Path(str(source)).stem
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._")[:64] or "recipe"


def _read(source: str | Path | Mapping[str, Any]) -> tuple[dict[str, Any], str, Path]:
    if isinstance(source, Mapping):
        return copy.deepcopy(dict(source)), "the recipe", Path.cwd()
    text = str(source)
    path = Path(text)
    if path.suffix in (".yaml", ".yml") or _is_file(path):
        return load_yaml(path), text, path.resolve().parent
    if text in builtin_names():
        return parse_yaml(builtin_text(text), source=f"recipe {text!r}"), text, Path.cwd()
    raise RecipeError(
        f"No built-in recipe named {text!r}{nearest(text, builtin_names())}",
        expected="a built-in name or the path of a .yaml file",
        todo="write a commented recipe with `edgekd init`",
    )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # no name that this file system could hold
        return False


def _set(values: dict[str, Any], override: str) -> None:
    """Apply one ``a.b.0.c=value``."""
    path, sign, text = override.partition("=")
    keys = path.strip().split(".")
    if not sign or not all(keys):
        raise RecipeError(
            f"--set {override!r} is not an override.", expected="--set distill.epochs=5"
        )
    value = parse_yaml(f"value: {text}", source=f"--set {override!r}")["value"]
    here: Any = values
    for index, key in enumerate(keys):
        last = index == len(keys) - 1
        where: Any = key
        if isinstance(here, list):
            if not key.isdigit() or int(key) >= len(here):
                raise RecipeError(
                    f"--set {override!r}: {'.'.join(keys[:index])} is a list.",
                    expected=f"a number from 0 to {len(here) - 1}",
                    got=repr(key),
                )
            where = int(key)
        elif not isinstance(here, dict):
            raise RecipeError(
                f"--set {override!r}: {'.'.join(keys[:index])} holds no fields.", got=repr(here)
            )
        if last:
            here[where] = value
        else:
            if isinstance(here, dict) and not isinstance(here.get(where), dict | list):
                # "student: resnet" is short for {name: resnet}
                short = here.get(where)
                here[where] = {"name": short} if isinstance(short, str) else {}
            here = here[where]


def _budget_name(text: Any) -> str:
    return str(text).partition("<=")[0].strip()
