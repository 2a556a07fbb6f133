"""A user's own Python and other inputs that fail where nobody expects it."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from tests.faults.conftest import Said

Write = Callable[..., Path]
Command = Callable[..., "Said"]

LINEAR = "from torch import nn\ndef build(): return nn.Linear(12, 4)\n"


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("import sys; sys.exit(0)", "failed while it was imported"),
        ("def build():\n    raise SystemExit(0)", "failed when it was called"),
        (
            "def build():\n    return 1 / 0",
            "ZeroDivisionError: division by zero (mynet.py, line 2",
        ),
        ("def build():\n    return 5", "does not make a torch module"),
        ("def buidl(): ...", "has no 'build'. Did you mean 'buidl'?"),
        ("def build(:", "SyntaxError"),
        ("import nothing_of_the_kind", "needs the package 'nothing_of_the_kind'"),
    ],
    ids=["exits", "exits later", "fails", "no module", "misspelt", "no python", "no package"],
)
def test_a_factory_that_fails_is_named(
    source: str, text: str, write_recipe: Write, edgekd: Command, tmp_path: Path
) -> None:
    path = write_recipe({"teacher": {"factory": "mynet:build", "weights": "w.safetensors"}})
    (tmp_path / "mynet.py").write_text(source)
    said = edgekd("compress", path)
    assert said.code == (3 if "package" in text else 2), said.err
    assert "teacher.factory" in said.err
    assert text in said.err


def test_a_whole_model_in_a_pt_file_is_refused_and_not_run(
    write_recipe: Write, edgekd: Command, tmp_path: Path
) -> None:
    import torch

    path = write_recipe({"teacher": {"factory": "mynet:build", "weights": "w.pt"}})
    (tmp_path / "mynet.py").write_text(LINEAR)
    content = io.BytesIO()
    torch.save(torch.nn.Linear(12, 4), content)
    (tmp_path / "w.pt").write_bytes(content.getvalue())
    said = edgekd("compress", path)
    assert said.code == 2, said.err
    assert "w.pt is not weights: it is a pickle that could run code when loaded." in said.err
    assert "tensors only" in said.err


@pytest.mark.parametrize(
    ("changes", "texts"),
    [
        ({"distill.augment": {"crop_px": 1}}, ["augment changes images, and these"]),
        ({"quantize.train.augment": {"flip": True}}, ["augment changes images, and these"]),
        (
            {
                "distill.objectives": [
                    {"name": "feature_mse", "student_layer": "nowhere", "teacher_layer": "head"}
                ]
            },
            ["The student has no layer 'nowhere'", "Known: "],
        ),
        (
            {
                "quantize.objectives": [
                    {"name": "feature_mse", "student_layer": "head", "teacher_layer": "tail"}
                ]
            },
            ["The teacher has no layer 'tail'", "Known: "],
        ),
        ({"quantize.keep_float": ["stem*"]}, ["the pattern 'stem*' matches no layer"]),
    ],
    ids=["augment", "augment later", "student's layer", "teacher's layer", "pattern"],
)
def test_what_does_not_fit_is_said_before_any_student_is_trained(
    changes: dict[str, Any], texts: list[str], write_recipe: Write, edgekd: Command, tmp_path: Path
) -> None:
    said = edgekd("compress", write_recipe(changes))
    assert said.code == 2, said.err
    for text in texts:
        assert text in said.err
    assert not list((tmp_path / "runs" / "tiny").glob("stages/control*"))
    assert not list((tmp_path / "runs" / "tiny").glob("stages/distilled*"))


def idx(values: np.ndarray) -> bytes:
    """The values as an IDX file: http://yann.lecun.com/exdb/mnist/, "The IDX file format"."""
    head = bytes([0, 0, 8, values.ndim]) + b"".join(n.to_bytes(4, "big") for n in values.shape)
    return head + values.astype(np.uint8).tobytes()


@pytest.mark.parametrize(
    ("spoiled", "keep", "text"),
    [
        ("train-images", 0.5, "train-images"),
        ("train-labels", 0.5, "train-labels"),
        ("test-images", 3, "test-images"),
        ("test-labels", 0, "test-labels"),
    ],
)
def test_a_truncated_idx_file_is_refused(
    spoiled: str, keep: float, text: str, write_recipe: Write, edgekd: Command, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    files = {
        "train-images": idx(rng.integers(0, 255, (80, 6, 6))),
        "train-labels": idx(np.arange(80) % 4),
        "test-images": idx(rng.integers(0, 255, (20, 6, 6))),
        "test-labels": idx(np.arange(20) % 4),
    }
    raw = files[spoiled]
    files[spoiled] = raw[: int(len(raw) * keep) if isinstance(keep, float) else keep]
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    fields = {name.replace("-", "_"): name for name in files}
    data = {"name": "idx", "folder": ".", "validation": 20, **fields}
    said = edgekd("compress", write_recipe({"data": data}))
    assert said.code == 2, said.err
    assert text in said.err
    assert not list((tmp_path / "runs").rglob("stages"))
