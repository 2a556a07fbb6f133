from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgekd.core.config import dump_yaml, parse_yaml, validate
from edgekd.core.errors import DataError, RecipeError
from edgekd.distill.objectives._contract import LOGITS
from edgekd.distill.teacher import Teacher, TeacherSection, check_teacher
from edgekd.distill.weights import save_weights
from edgekd.students._contract import NetSpec
from edgekd.tasks._contract import Data
from edgekd.tasks.classification import Classification

SPEC = NetSpec((1, 6, 6), 4)
MODULE = """
from torch import nn
def build(hidden=5, classes=4):
    return nn.Sequential(nn.Flatten(), nn.Linear(36, hidden), nn.ReLU(inplace=True),
                         nn.Dropout(), nn.Linear(hidden, classes))
def one(): return "a model"
number = 3
class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Linear(36, 4)
    def forward(self, x):
        return self.w(x.flatten(1)), x
"""


def section(**fields: Any) -> TeacherSection:
    return validate(TeacherSection, fields, source="recipe.yaml")


def wrong(**fields: Any) -> str:
    with pytest.raises(RecipeError) as error:
        section(**fields)
    return str(error.value)


def net(classes: int = 4, hidden: int = 5) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(36, hidden),
        nn.ReLU(inplace=True),
        nn.Dropout(),
        nn.Linear(hidden, classes),
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "teachers.py").write_text(MODULE)
    save_weights(tmp_path / "w.safetensors", net().state_dict(), {})
    return tmp_path


@pytest.fixture
def inputs(data: Data) -> Tensor:
    return torch.from_numpy(data.test.batch(np.arange(11)))


# ------------------------------------------------------------------------------ the section
@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "give exactly one of `family`, `factory` (with `weights`) and `onnx`, got none"),
        ({"family": "resnet", "onnx": "t.onnx"}, "and `onnx`, got `family` and `onnx`"),
        ({"factory": "a:b"}, "`factory` needs `weights`: a .safetensors file, or a .pt file"),
        ({"onnx": "t", "weights": "w"}, "`weights` belongs to `factory` and means nothing with"),
        ({"family": "mlp", "weights": "w"}, "`weights` belongs to `factory`"),
        ({"factory": "a:b", "weights": "w", "train": {}}, "`train` belongs to `family`"),
        ({"factory": "a:b", "weights": "w", "outputs": "logits"}, "`outputs` belongs to `onnx`"),
        ({"onnx": "t", "outputs": "scores"}, "outputs: Input should be 'logits' or"),
        ({"family": "resnett"}, "family.name: No student family named 'resnett'. Did you mean"),
        ({"family": {"name": "resnet", "width": 3}}, "family.width: no such field. Did you mean"),
        ({"family": "mlp", "train": {"epoch": 3}}, "train.epoch: no such field. Did you mean"),
        ({"onxx": "t"}, "onxx: no such field. Did you mean 'onnx'?"),
    ],
)
def test_ways_that_do_not_go_together(fields: dict[str, Any], text: str) -> None:
    assert text in wrong(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"family": {"name": "mlp", "widths": [7]}, "train": {"epochs": 3}},
        {"factory": "a:b", "weights": "w.pt", "kwargs": {"n": 3}},
        {"onnx": "t.onnx", "outputs": "probabilities", "output": "y"},
    ],
)
def test_a_section_survives_a_recipe(fields: dict[str, Any]) -> None:
    first = section(**fields)
    text = dump_yaml({"teacher": first.model_dump(mode="json")})
    assert section(**parse_yaml(text, source="text")["teacher"]) == first


def test_a_family_takes_the_weights_it_was_trained_to(tmp_path: Path, inputs: Tensor) -> None:
    given = section(family={"name": "mlp", "widths": [7]})
    trained = given.family.build(SPEC).eval()
    save_weights(tmp_path / "t.safetensors", trained.state_dict(), {"role": "teacher"})
    teacher = given.load(tmp_path, SPEC, weights=tmp_path / "t.safetensors")
    assert torch.equal(teacher.logits(inputs), trained(inputs))
    assert teacher.description == "mlp trained here"
    with pytest.raises(ValueError, match="is loaded with the weights it was trained to"):
        given.load(tmp_path, SPEC)


# ---------------------------------------------------------------------- a module of the user's
def test_a_factory_with_weights(folder: Path, inputs: Tensor, data: Data) -> None:
    teacher = section(factory="teachers:build", weights="w.safetensors").load(folder, SPEC)
    assert teacher.onnx_path is None
    assert teacher.description == "teachers:build with w.safetensors"
    logits = teacher.logits(inputs)
    assert torch.equal(logits, net().eval()(inputs))  # eval mode: no dropout
    assert not logits.requires_grad
    assert teacher.module is not None
    teacher.module.train()  # whoever shares the module
    assert torch.equal(teacher.logits(inputs), logits)
    check_teacher(teacher, data, Classification())


def test_kwargs_reach_the_factory(folder: Path) -> None:
    save_weights(folder / "w9.safetensors", net(hidden=9).state_dict(), {})
    given = {"factory": "teachers:build", "weights": "w9.safetensors", "kwargs": {"hidden": 9}}
    assert section(**given).load(folder, SPEC).module[1].out_features == 9
    with pytest.raises(DataError) as error:
        section(**given | {"kwargs": {}}).load(folder, SPEC)
    assert "of another shape: 1.weight (9, 36) for (5, 36), 1.bias (9,) for (5,)" in str(
        error.value
    )


@pytest.mark.parametrize(
    ("factory", "text"),
    [
        ("teachers.build", "teacher.factory does not name a Python attribute."),
        ("teecher:build", "teacher.factory: there is no Python module 'teecher'."),
        ("teachers:biuld", "teacher.factory: 'teachers' has no 'biuld'. Did you mean 'build'?"),
        ("teachers:number", "teacher.factory: 'teachers:number' cannot be called.\n"
         "  expected: a function or class that returns the teacher\n  got:      int"),
        ("teachers:one", "teacher.factory: 'teachers:one' does not make a torch module.\n"
         "  expected: a torch.nn.Module\n  got:      str"),
    ],
)  # fmt: skip
def test_factories_that_make_no_teacher(factory: str, text: str, folder: Path) -> None:
    with pytest.raises(RecipeError) as error:
        section(factory=factory, weights="w.safetensors").load(folder, SPEC)
    assert text in str(error.value)


def test_a_network_that_returns_several_things(folder: Path, data: Data) -> None:
    save_weights(
        folder / "p.safetensors",
        {f"w.{k}": v for k, v in nn.Linear(36, 4).state_dict().items()},
        {},
    )
    teacher = section(factory="teachers:Pair", weights="p.safetensors").load(folder, SPEC)
    with pytest.raises(RecipeError) as error:
        check_teacher(teacher, data, Classification())
    assert str(error.value) == (
        "The teacher does not return one tensor.\n"
        "  expected: logits of shape (B, classes)\n"
        "  got:      tuple\n"
        "  to do:    wrap it in a module that returns the logits alone"
    )


def test_the_hash_follows_weights_and_architecture() -> None:
    def sha(module: nn.Module) -> str:
        return Teacher.from_module(module, "").sha256

    assert sha(net()) == sha(net())
    changed = net()
    with torch.no_grad():
        changed[1].weight[0, 0] += 1e-6
    assert sha(changed) != sha(net())
    other = net()
    other[2] = nn.Tanh()  # the same tensors
    assert sha(other) != sha(net())


def test_taps_are_named_activations(inputs: Tensor) -> None:
    teacher = Teacher.from_module(net(), "a net")
    found = teacher.taps(inputs, ["1", LOGITS, "2"])
    assert list(found) == ["1", LOGITS, "2"]
    module = net().eval()
    before = module[1](inputs.flatten(1))
    assert torch.equal(found["1"], before)  # not what the ReLU in place made of it
    assert torch.equal(found["2"], before.relu())
    assert torch.equal(found[LOGITS], module(inputs))
    assert not any(t.requires_grad for t in found.values())
    assert teacher.taps(inputs, []) == {}
    with pytest.raises(RecipeError, match=r"The teacher has no layer '11'. Did you mean '1'"):
        teacher.taps(inputs, ["11"])


# ------------------------------------------------------------------- does it fit the data?
def test_outputs_that_are_no_rows_of_logits(data: Data) -> None:
    teacher = Teacher.from_module(nn.Conv2d(1, 4, 3), "a net")
    with pytest.raises(RecipeError) as error:
        check_teacher(teacher, data, Classification())
    assert "The teacher does not give one row of logits per sample." in str(error.value)
    assert "got:      shape (8, 4, 4, 4) for 8 samples" in str(error.value)


def test_outputs_that_are_not_finite(data: Data) -> None:
    class Diverged(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            out = torch.zeros(len(x), 4)
            out[2, 1] = torch.nan
            return out

    with pytest.raises(DataError) as error:
        check_teacher(Teacher.from_module(Diverged(), "x"), data, Classification())
    assert str(error.value) == (
        "The teacher gives NaN or infinity on real samples.\n"
        "  expected: finite logits\n"
        "  got:      1 of 8 samples are not finite\n"
        "  to do:    check its weights and how its inputs are scaled"
    )
