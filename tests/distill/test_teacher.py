from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from edgekd.core.config import dump_yaml, parse_yaml, validate
from edgekd.core.errors import DataError, EdgekdError, RecipeError, UnsupportedError
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


# ------------------------------------------------------------------------------- an ONNX file
def onnx_file(
    path: Path,
    *,
    batch: int | None = None,
    softmax: bool = False,
    classes: int = 4,
    dtype: int = TensorProto.FLOAT,
    outputs: int = 1,
    weights: Callable[[np.ndarray], np.ndarray] = lambda w: w,
) -> np.ndarray:
    """Flatten, multiply by the weights that are returned, perhaps softmax."""
    w = np.random.default_rng(3).normal(0, 0.3, (36, classes))
    w = weights(w).astype(helper.tensor_dtype_to_np_dtype(dtype))
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["product"]),
        helper.make_node("Softmax" if softmax else "Identity", ["product"], ["y"]),
    ]
    shape = [batch or "batch", 1, 6, 6]
    out = [helper.make_tensor_value_info("y", dtype, [batch or "batch", classes])]
    if outputs == 2:
        out.append(helper.make_tensor_value_info("flat", dtype, [batch or "batch", 36]))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", dtype, shape)],
        out,
        [numpy_helper.from_array(w, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, path)
    return w


@pytest.mark.parametrize("batch", [None, 1, 4])
def test_a_black_box_of_any_batch_size(batch: int | None, tmp_path: Path, inputs: Tensor) -> None:
    w = onnx_file(tmp_path / "t.onnx", batch=batch)
    teacher = section(onnx="t.onnx").load(tmp_path, SPEC)
    assert teacher.module is None
    assert teacher.onnx_path == tmp_path / "t.onnx"
    assert teacher.description == "ONNX file t.onnx"
    logits = teacher.logits(inputs)
    assert logits.dtype == torch.float32
    # float32 sums of 36 products of order 1: 36 * 2^-24 * 2 is about 4e-6
    np.testing.assert_allclose(logits, inputs.flatten(1).numpy() @ w, atol=1e-5)
    assert torch.equal(teacher.taps(inputs, [LOGITS])[LOGITS], logits)


def test_a_black_box_in_half_precision(tmp_path: Path, inputs: Tensor) -> None:
    w = onnx_file(tmp_path / "t.onnx", dtype=TensorProto.FLOAT16)
    logits = section(onnx="t.onnx").load(tmp_path, SPEC).logits(inputs)
    assert logits.dtype == torch.float32
    # float16 keeps 11 bits: 36 terms of order 1, each off by at most 2^-11
    np.testing.assert_allclose(logits, inputs.flatten(1).numpy() @ w, atol=36 * 2**-11)


def test_only_the_outputs_of_a_black_box_are_known(tmp_path: Path, inputs: Tensor) -> None:
    onnx_file(tmp_path / "t.onnx")
    teacher = section(onnx="t.onnx").load(tmp_path, SPEC)
    with pytest.raises(UnsupportedError) as error:
        teacher.taps(inputs, [LOGITS, "layer1"])
    assert str(error.value) == (
        "The teacher is ONNX file t.onnx, of which only the outputs are known.\n"
        "  expected: objectives that read the teacher's logits\n"
        "  got:      one that reads 'layer1'\n"
        "  to do:    use logits_kl, or give the teacher as factory: and weights:"
    )


def test_probabilities_become_logits(tmp_path: Path, inputs: Tensor) -> None:
    w = onnx_file(tmp_path / "t.onnx", softmax=True)
    logits = section(onnx="t.onnx", outputs="probabilities").load(tmp_path, SPEC).logits(inputs)
    expected = torch.from_numpy(inputs.flatten(1).numpy() @ w).float().log_softmax(1)
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)


def test_a_probability_of_zero_stays_finite(tmp_path: Path, inputs: Tensor) -> None:
    onnx_file(tmp_path / "t.onnx", softmax=True, weights=lambda w: w * 1e4)
    logits = section(onnx="t.onnx", outputs="probabilities").load(tmp_path, SPEC).logits(inputs)
    assert logits.isfinite().all()
    assert logits.min().item() == pytest.approx(np.log(1e-7))


def test_probabilities_are_not_taken_for_logits(tmp_path: Path, data: Data) -> None:
    onnx_file(tmp_path / "t.onnx", softmax=True)
    with pytest.raises(RecipeError) as error:
        check_teacher(section(onnx="t.onnx").load(tmp_path, SPEC), data, Classification())
    text = str(error.value)
    assert "The outputs of the teacher t.onnx look like probabilities." in text
    assert "to do:    set teacher.outputs: probabilities" in text


def test_logits_are_not_taken_for_probabilities(tmp_path: Path, data: Data) -> None:
    onnx_file(tmp_path / "t.onnx")
    teacher = section(onnx="t.onnx", outputs="probabilities").load(tmp_path, SPEC)
    with pytest.raises(DataError) as error:
        check_teacher(teacher, data, Classification())
    text = str(error.value)
    assert "The outputs of the teacher t.onnx are not probabilities." in text
    assert "to do:    leave teacher.outputs out if they are logits" in text


def test_one_of_several_outputs(tmp_path: Path, inputs: Tensor) -> None:
    w = onnx_file(tmp_path / "t.onnx", outputs=2)
    with pytest.raises(RecipeError) as error:
        section(onnx="t.onnx").load(tmp_path, SPEC)
    assert "The teacher t.onnx has several outputs." in str(error.value)
    assert "got:      y, flat\n  to do:    set teacher.output" in str(error.value)
    with pytest.raises(RecipeError, match=r"The teacher t.onnx has no output 'z'"):
        section(onnx="t.onnx", output="z").load(tmp_path, SPEC)
    logits = section(onnx="t.onnx", output="y").load(tmp_path, SPEC).logits(inputs)
    np.testing.assert_allclose(logits, inputs.flatten(1).numpy() @ w, atol=1e-5)


def test_the_hash_of_a_black_box(tmp_path: Path) -> None:
    def sha(name: str, **fields: str) -> str:
        return section(onnx=name, **fields).load(tmp_path, SPEC).sha256

    onnx_file(tmp_path / "a.onnx", outputs=2)
    onnx_file(tmp_path / "b.onnx", outputs=2)
    onnx_file(tmp_path / "c.onnx", outputs=2, weights=lambda w: w + 1)
    assert sha("a.onnx", output="y") == sha("b.onnx", output="y")
    others = {sha("c.onnx", output="y"), sha("a.onnx", output="flat"),
              sha("a.onnx", output="y", outputs="probabilities")}  # fmt: skip
    assert len(others | {sha("a.onnx", output="y")}) == 4


def test_the_hash_covers_weights_in_other_files(tmp_path: Path) -> None:
    onnx_file(tmp_path / "plain.onnx")
    model = onnx.load(tmp_path / "plain.onnx")
    onnx.save_model(model, tmp_path / "t.onnx", save_as_external_data=True, location="t.data",
                    size_threshold=0)  # fmt: skip
    first = section(onnx="t.onnx").load(tmp_path, SPEC).sha256
    data = bytearray((tmp_path / "t.data").read_bytes())
    data[0] ^= 1
    (tmp_path / "t.data").write_bytes(data)
    assert section(onnx="t.onnx").load(tmp_path, SPEC).sha256 != first


def test_files_that_are_no_usable_teacher(tmp_path: Path) -> None:
    def refused() -> EdgekdError:
        with pytest.raises(DataError) as error:
            section(onnx="t.onnx").load(tmp_path, SPEC)
        return error.value

    path = tmp_path / "t.onnx"
    assert f"There is no file {str(path)!r}." in str(refused())
    path.touch()
    assert f"{path} is empty." in str(refused())
    onnx_file(path)
    path.write_bytes(path.read_bytes()[:-9])
    assert f"{path} is cut off." in str(refused())
    (tmp_path / "secret").write_bytes(bytes(36 * 4 * 4))
    inner = tmp_path / "inner"
    inner.mkdir()
    onnx_file(path)
    model = onnx.load(path)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")
    (inner / "t.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(DataError, match=r"points at a file outside its folder: '../secret'"):
        section(onnx="inner/t.onnx").load(tmp_path, SPEC)


def test_an_input_that_is_no_batch_of_numbers(tmp_path: Path) -> None:
    onnx_file(tmp_path / "t.onnx")
    model = onnx.load(tmp_path / "t.onnx")
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64
    model.graph.node.insert(0, helper.make_node("Cast", ["x"], ["x_float"], to=1))
    model.graph.node[1].input[0] = "x_float"
    onnx.save(model, tmp_path / "t.onnx")
    with pytest.raises(RecipeError) as error:
        section(onnx="t.onnx").load(tmp_path, SPEC)
    assert "The teacher t.onnx does not take one batch of numbers." in str(error.value)
    assert "expected: one float input\n  got:      x (int64)" in str(error.value)


# ------------------------------------------------------------------- does it fit the data?
def test_classes_that_differ_from_the_datas(tmp_path: Path, data: Data) -> None:
    onnx_file(tmp_path / "t.onnx", classes=7)
    for teacher in (
        section(onnx="t.onnx").load(tmp_path, SPEC),
        Teacher.from_module(net(classes=7), "a net"),
    ):
        with pytest.raises(RecipeError) as error:
            check_teacher(teacher, data, Classification())
        assert str(error.value) == (
            "The teacher's classes differ from the data's.\n"
            "  expected: 4 outputs, one per class of the data\n"
            "  got:      7 outputs\n"
            "  to do:    use a teacher that was trained on these classes"
        )


def test_outputs_that_are_no_rows_of_logits(data: Data) -> None:
    teacher = Teacher.from_module(nn.Conv2d(1, 4, 3), "a net")
    with pytest.raises(RecipeError) as error:
        check_teacher(teacher, data, Classification())
    assert "The teacher does not give one row of logits per sample." in str(error.value)
    assert "got:      shape (8, 4, 4, 4) for 8 samples" in str(error.value)


def test_inputs_of_another_shape(tmp_path: Path, data: Data) -> None:
    onnx_file(tmp_path / "t.onnx")
    larger = replace(data, input_shape=(1, 8, 8), train=_Fixed(np.zeros((8, 1, 8, 8), np.float32)))
    with pytest.raises(RecipeError) as error:
        check_teacher(section(onnx="t.onnx").load(tmp_path, SPEC), larger, Classification())
    assert (
        "The teacher t.onnx takes inputs of another shape than the data's.\n"
        "  expected: samples of shape (1, 6, 6)\n  got:      samples of shape (1, 8, 8)"
        in str(error.value)
    )
    with pytest.raises(RecipeError) as error:
        check_teacher(Teacher.from_module(net(), "a net"), larger, Classification())
    text = str(error.value)
    assert "The teacher (a net) cannot take the data's inputs." in text
    assert (
        "expected: a model for inputs of shape (1, 8, 8)\n  got:      RuntimeError: mat1" in text
    )


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


class _Fixed:
    """A split of given inputs."""

    def __init__(self, values: np.ndarray) -> None:
        self.values, self.labels = values, np.arange(len(values)) % 4

    def __len__(self) -> int:
        return len(self.values)

    def batch(self, indices: np.ndarray) -> np.ndarray:
        return self.values[indices]
