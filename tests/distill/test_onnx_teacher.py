"""An ONNX file as a teacher: a black box of which only the outputs are known."""

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

from edgekd.core.config import validate
from edgekd.core.errors import DataError, EdgekdError, RecipeError, UnsupportedError
from edgekd.distill.objectives._contract import LOGITS
from edgekd.distill.teacher import Teacher, TeacherSection, check_teacher
from edgekd.students._contract import NetSpec
from edgekd.tasks._contract import Data
from edgekd.tasks.classification import Classification

SPEC = NetSpec((1, 6, 6), 4)


def section(**fields: Any) -> TeacherSection:
    return validate(TeacherSection, fields, source="recipe.yaml")


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
def inputs(data: Data) -> Tensor:
    return torch.from_numpy(data.test.batch(np.arange(11)))


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


class _Fixed:
    """A split of given inputs."""

    def __init__(self, values: np.ndarray) -> None:
        self.values, self.labels = values, np.arange(len(values)) % 4

    def __len__(self) -> int:
        return len(self.values)

    def batch(self, indices: np.ndarray) -> np.ndarray:
        return self.values[indices]
