"""Targets that this machine or this student cannot serve, and proofs that fail."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from edgekd.backends._contract import BACKENDS
from edgekd.core.config import dump_yaml
from edgekd.core.errors import MissingDependencyError
from edgekd.core.ledger import Ledger
from edgekd.core.target import load_target

if TYPE_CHECKING:
    from tests.faults.conftest import Said

Write = Callable[..., Path]
Command = Callable[..., "Said"]


def write_target(folder: Path, **changes: Any) -> str:
    """``mine.yaml``: the int8 target of ONNX Runtime with other values."""
    values = load_target("x86-onnxruntime-int8").model_dump(mode="json", exclude_none=True)
    (folder / "mine.yaml").write_text(dump_yaml({**values, "name": "mine", **changes}))
    return "mine.yaml"


@pytest.mark.parametrize(
    ("changes", "code", "texts"),
    [
        (
            {"runtime": ">=900"},
            4,
            ["The target 'mine' needs another version of onnxruntime.", "onnxruntime >=900"],
        ),
        ({"runtime": "newest"}, 2, ["The target 'mine' has no valid runtime version", "'newest'"]),
        ({"backend": "openvin"}, 2, ["The target 'mine' cannot run.", "mean 'openvino'?"]),
        ({"backend": "tvm"}, 2, ["The target 'mine' cannot run.", "Known: "]),
        ({"name": "yours"}, 2, ["mine.yaml carries another target's name", "name: yours"]),
        ({"precison": "int8"}, 2, ["mine.yaml is not valid", "Did you mean 'precision'?"]),
        ({"scheme": None}, 2, ["mine.yaml is not valid", "an int8 target needs a `scheme`"]),
        ({"options": {"threads": 3}}, 2, ["'mine' has an option that ONNX Runtime", "threads"]),
    ],
    ids=lambda v: next(iter(v)) if isinstance(v, dict) else None,
)
def test_a_target_that_cannot_be_served(
    changes: dict[str, Any],
    code: int,
    texts: list[str],
    write_recipe: Write,
    edgekd: Command,
    tmp_path: Path,
) -> None:
    recipe = write_recipe({"targets": [write_target(tmp_path, **changes)]})
    said = edgekd("compress", recipe)
    assert said.code == code, said.err
    for text in texts:
        assert text in said.err
    assert not (tmp_path / "runs" / "tiny" / "artifacts").exists()


def test_a_target_whose_program_is_not_here_is_refused_before_any_training(
    write_recipe: Write, edgekd: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgekd.backends._tensorrt.trtexec.USUAL_FOLDER", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    said = edgekd("compress", write_recipe(), "--target", "jetson-orin-tensorrt-int8")
    assert said.code == 3, said.err
    assert "The target 'jetson-orin-tensorrt-int8' cannot run here." in said.err
    assert "needs the program trtexec" in said.err
    assert not (tmp_path / "runs" / "tiny" / "stages").exists()


@pytest.mark.parametrize("name", ["rtx-tensorrt-int8"])
def test_a_target_whose_device_is_not_here_is_refused_before_any_training(
    name: str, write_recipe: Write, edgekd: Command, tmp_path: Path
) -> None:
    backend = load_target(name).backend
    try:
        BACKENDS.get(backend)
    except MissingDependencyError as e:
        pytest.skip(e.failed)
    said = edgekd("compress", write_recipe(), "--target", name)
    assert said.code == 4, said.err
    assert f"The target {name!r} cannot be measured" in said.err
    assert "NVIDIA" in said.err
    assert "  to do:    " in said.err
    assert not (tmp_path / "runs" / "tiny" / "stages").exists()


def test_a_file_that_is_not_its_student_is_refused_at_the_first_rung_and_never_delivered(
    write_recipe: Write, edgekd: Command, tmp_path: Path
) -> None:
    # no two programs round alike, so nothing keeps this tolerance
    impossible = {"mean_abs": 1e-12, "agreement": 1.0}
    recipe = write_recipe({"targets": [write_target(tmp_path, tolerance=impossible)]})
    said = edgekd("compress", recipe)
    assert said.code == 5, said.err
    assert re.search(
        r"^Parity breaks at the rung '(ONNX reference|mine)': it computes something else than "
        r"'torch fake-quant'\.$",
        said.err,
        re.MULTILINE,
    )
    assert "  expected: mean difference within 1e-12 of the logits' spread" in said.err
    assert re.search(r"  to do:    (the first layer that differs is|all activations)", said.err)
    out = tmp_path / "runs" / "tiny"
    for name in ("artifacts", "report.html", "report.json", "verdict.json"):
        assert not (out / name).exists()

    # with a tolerance that can be kept, only the proof is done again
    before = len(Ledger(out / "ledger.jsonl").events)
    write_target(tmp_path)
    assert edgekd("compress", recipe).code == 0
    events = Ledger(out / "ledger.jsonl").events[before:]
    done = [e["name"] for e in events if e["event"] == "stage_done"]
    assert done[0] == "proof/mine"
    assert not any(name.startswith(("distilled", "export")) for name in done)
