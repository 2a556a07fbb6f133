"""Everything a user can get wrong: one clear message, its exit code, nothing half-written.

The pieces have tests of their own for every detail; here the whole way from the command line.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from edgekd.backends._contract import BACKENDS
from edgekd.core.progress import Silent
from edgekd.core.stages import Run

if TYPE_CHECKING:
    from tests.faults.conftest import Said

Write = Callable[..., Path]
Command = Callable[..., "Said"]


def refused(said: Said, code: int, *texts: str) -> None:
    """One message with these texts and nothing else on stdout."""
    assert said.code == code, said.err
    for text in texts:
        assert text in said.err, said.err
    assert said.out == ""
    assert "bug in edgekd" not in said.err


def left_behind(folder: Path) -> list[str]:
    """What a refused run may leave: its folder with a lock and a ledger, and nothing half-done."""
    found = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]
    return [n for n in found if Path(n).name not in ("lock", "ledger.jsonl")]


# ------------------------------------------------------------------ the recipe
@pytest.mark.parametrize(
    ("args", "texts"),
    [
        (["nothing.yaml"], ["There is no file 'nothing.yaml'", "edgekd init"]),
        (["digit"], ["No built-in recipe named 'digit'. Did you mean 'digits'?"]),
        (["digits", "--set", "distill.epoch=5"], ["distill.epoch: no such field", "'epochs'?"]),
        (["digits", "--set", "epochs"], ["--set 'epochs' is not an override"]),
        (["digits", "--set", "distill.epochs=[1"], ["is not YAML"]),
        (["digits", "--target", "x86-openvino-int4"], ["Did you mean 'x86-openvino-int8'?"]),
        (["digits", "--target", "mine.yaml"], ["There is no file 'mine.yaml'"]),
        (["digits", "--budget", "p91<=2ms"], ["no budget named 'p91'. Did you mean 'p9"]),
        (["digits", "--budget", "p90<=2"], ["p90 needs a unit. Known: ms, s, us"]),
        (["."], ["No built-in recipe named '.'"]),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else None,
)
def test_a_wrong_command_line_is_refused_before_anything_is_made(
    args: list[str], texts: list[str], edgekd: Command, tmp_path: Path
) -> None:
    refused(edgekd("compress", *args), 2, *texts)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "texts"),
    [
        ({"data.name": "array"}, ["data.name: No data source named 'array'", "'arrays'?"]),
        ({"student.name": "resnt"}, ["student.name: No student family", "'resnet'?"]),
        ({"student.width": [3]}, ["student.width: no such field. Did you mean 'widths'?"]),
        ({"distill.objectives": ["logit_kl"]}, ["distill.objectives.0.name: No objective"]),
        ({"targets": []}, ["targets: "]),
        ({"teacher": None}, ["teacher: is required"]),
        ({"teacher.onnx": "t.onnx"}, ["teacher: "]),
        ({"seeds": 0}, ["seeds: Input should be greater than or equal to 1, got 0"]),
        ({"name": "../up"}, ["name: "]),
        ({"budgets": ["p90<=1ms", "p90<=2ms"]}, ["budgets: more than one budget on p90"]),
    ],
    ids=lambda v: next(iter(v)) if isinstance(v, dict) else None,
)
def test_a_wrong_recipe_names_the_field(
    changes: dict[str, Any], texts: list[str], write_recipe: Write, edgekd: Command, tmp_path: Path
) -> None:
    refused(edgekd("compress", write_recipe(changes)), 2, "tiny.yaml is not valid.", *texts)
    assert not (tmp_path / "runs").exists()


def test_a_repeated_key_is_refused(write_recipe: Write, edgekd: Command) -> None:
    path = write_recipe()
    path.write_text(path.read_text() + "seeds: 2\n")
    refused(edgekd("compress", path), 2, "gives a key twice", "seeds")


# ------------------------------------------------------------------ the data
def nan(data: dict[str, np.ndarray]) -> None:
    data["x"][7, 3] = np.nan


def infinite(data: dict[str, np.ndarray]) -> None:
    data["x"][7, 3] = np.inf


def too_few_labels(data: dict[str, np.ndarray]) -> None:
    data["y"] = data["y"][:-1]


def negative_label(data: dict[str, np.ndarray]) -> None:
    data["y"][3] = -1


def labels_with_fractions(data: dict[str, np.ndarray]) -> None:
    data["y"] = data["y"] + 0.5


def no_labels(data: dict[str, np.ndarray]) -> None:
    del data["y"]


def five_axes(data: dict[str, np.ndarray]) -> None:
    data["x"] = data["x"].reshape(-1, 2, 3, 2, 1)


@pytest.mark.parametrize(
    "spoil",
    [nan, infinite, too_few_labels, negative_label, labels_with_fractions, no_labels, five_axes],
)
def test_unusable_data_is_refused(
    spoil: Callable[[dict[str, np.ndarray]], None],
    data: dict[str, np.ndarray],
    write_recipe: Write,
    edgekd: Command,
    tmp_path: Path,
) -> None:
    spoil(data)
    refused(edgekd("compress", write_recipe(**data)), 2, "data.npz", "  got:  ")
    assert left_behind(tmp_path / "runs") == []


def test_a_label_beyond_the_named_classes_is_refused(write_recipe: Write, edgekd: Command) -> None:
    path = write_recipe({"data.classes": ["a", "b", "c"]})
    refused(edgekd("compress", path), 2, "label", "3")


def test_a_missing_data_file_is_refused(write_recipe: Write, edgekd: Command) -> None:
    refused(edgekd("compress", write_recipe({"data.path": "other.npz"})), 2, "other.npz")


@pytest.mark.parametrize("keep", [0, 100, 0.5, -1], ids=["empty", "head", "half", "no last byte"])
def test_a_truncated_data_file_is_refused(
    keep: float, write_recipe: Write, edgekd: Command, tmp_path: Path
) -> None:
    path = write_recipe()
    raw = (tmp_path / "data.npz").read_bytes()
    size = int(len(raw) * keep) if isinstance(keep, float) else keep
    (tmp_path / "data.npz").write_bytes(raw[:size])
    refused(edgekd("compress", path), 2, "data.npz")


def test_pickled_data_is_refused_and_not_run(
    data: dict[str, np.ndarray], write_recipe: Write, edgekd: Command
) -> None:
    data["x"] = np.array([object()] * len(data["y"]))
    refused(edgekd("compress", write_recipe(**data)), 2, "data.npz", "pickle")


# ------------------------------------------------------------------ the teacher
def linear_onnx(features: int = 12, classes: int = 4) -> bytes:
    """A teacher as an ONNX file: one matrix product."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weight = np.random.default_rng(0).normal(size=(features, classes)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["input", "w"], ["logits"])],
        "teacher",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", features])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", classes])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def escaping_onnx() -> bytes:
    """The same, with its weights in a file outside its folder."""
    import onnx

    model = onnx.ModelProto.FromString(linear_onnx())
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", "../../../etc/passwd"), ("offset", "0"), ("length", "192")):
        entry = weight.external_data.add()
        entry.key, entry.value = key, value
    return model.SerializeToString()


@pytest.mark.parametrize(
    ("make", "texts"),
    [
        (lambda: b"", ["teacher.onnx", "empty"]),
        (lambda: linear_onnx()[:-60], ["teacher.onnx"]),
        (lambda: b"\x80\x04 this is no model", ["teacher.onnx"]),
        (escaping_onnx, ["teacher.onnx", "outside"]),
        (lambda: linear_onnx(classes=7), ["7", "4"]),
        (lambda: linear_onnx(features=5), ["5", "12"]),
    ],
    ids=["empty", "cut off", "garbage", "escaping", "other classes", "other inputs"],
)
def test_an_unusable_teacher_file_is_refused(
    make: Callable[[], bytes],
    texts: list[str],
    write_recipe: Write,
    edgekd: Command,
    tmp_path: Path,
) -> None:
    path = write_recipe({"teacher": {"onnx": "teacher.onnx"}})
    (tmp_path / "teacher.onnx").write_bytes(make())
    refused(edgekd("compress", path), 2, *texts)
    assert left_behind(tmp_path / "runs") == []


FACTORY = "from torch import nn\ndef build(): return nn.Linear(12, {classes})\n"


def weights_of_another_net() -> bytes:
    import torch

    out = io.BytesIO()
    torch.save({"weight": torch.zeros(3, 3)}, out)
    return out.getvalue()


def weights_that_run_code() -> bytes:
    # the pickle of an object whose loading calls os.system("touch pwned")
    return b"\x80\x04cos\nsystem\n\x8c\x0btouch pwned\x85R."


@pytest.mark.parametrize(
    ("file", "make", "text"),
    [
        ("w.pt", weights_that_run_code, "w.pt"),
        ("w.pt", weights_of_another_net, "weight"),
        ("w.pt", lambda: b"", "w.pt"),
        ("w.safetensors", lambda: b"\x00" * 5, "w.safetensors"),
        ("w.pkl", weights_that_run_code, "w.pkl"),
    ],
    ids=["code", "another net", "empty", "cut off", "pickle"],
)
def test_unusable_weights_are_refused_and_never_run(
    file: str,
    make: Callable[[], bytes],
    text: str,
    write_recipe: Write,
    edgekd: Command,
    tmp_path: Path,
) -> None:
    path = write_recipe({"teacher": {"factory": "mynet:build", "weights": file}})
    (tmp_path / "mynet.py").write_text(FACTORY.format(classes=4))
    (tmp_path / file).write_bytes(make())
    refused(edgekd("compress", path), 2, text)
    assert not (tmp_path / "pwned").exists()
    assert left_behind(tmp_path / "runs") == []


def test_a_teacher_with_other_classes_is_refused(
    write_recipe: Write, edgekd: Command, tmp_path: Path
) -> None:
    path = write_recipe({"teacher": {"factory": "mynet:build", "weights": "w.safetensors"}})
    (tmp_path / "mynet.py").write_text(FACTORY.format(classes=9))
    arrays = {"weight": np.zeros((9, 12), np.float32), "bias": np.zeros(9, np.float32)}
    save_file(arrays, tmp_path / "w.safetensors")
    refused(edgekd("compress", path), 2, "9", "4")


# ------------------------------------------------------------------ machine and folder
def test_a_target_whose_runtime_is_not_installed_is_refused_before_any_training(
    write_recipe: Write, edgekd: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # as on a machine without it: the package is missing and the plugin not imported yet
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.delitem(sys.modules, "edgekd.backends.openvino", raising=False)
    monkeypatch.delitem(BACKENDS._classes, "openvino", raising=False)
    said = edgekd("compress", write_recipe({"targets": ["x86-openvino-int8"]}))
    refused(said, 3, "openvino", "is not installed", "pip install openvino")
    assert left_behind(tmp_path / "runs") == []


def test_two_runs_in_one_folder_are_refused(
    write_recipe: Write, edgekd: Command, tmp_path: Path
) -> None:
    with Run(tmp_path / "out", Silent()):
        said = edgekd("compress", write_recipe(), "--out", tmp_path / "out")
    refused(said, 2, "Another edgekd is working in", "wait for it to end")


def test_a_file_in_the_place_of_the_run_folder_is_refused(
    write_recipe: Write, edgekd: Command, tmp_path: Path
) -> None:
    (tmp_path / "out").write_text("mine")
    said = edgekd("compress", write_recipe(), "--out", tmp_path / "out")
    refused(said, 2, "cannot be written to", "--out")
    assert (tmp_path / "out").read_text() == "mine"


def test_init_does_not_overwrite(edgekd: Command, tmp_path: Path) -> None:
    (tmp_path / "edgekd.yaml").write_text("mine")
    refused(edgekd("init"), 2, "edgekd.yaml exists already")
    assert (tmp_path / "edgekd.yaml").read_text() == "mine"
