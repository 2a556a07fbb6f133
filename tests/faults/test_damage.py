"""Files of a run that were damaged behind its back: made again, or refused; never believed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgekd.cli.main import run
from edgekd.core.config import dump_yaml
from edgekd.core.ledger import Ledger
from tests.faults.conftest import RECIPE, samples

if TYPE_CHECKING:
    from tests.faults.conftest import Said

Command = Callable[..., "Said"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe, its data and a finished run; nobody may change it."""
    folder = tmp_path_factory.mktemp("finished")
    np.savez(folder / "data.npz", **samples())
    (folder / "tiny.yaml").write_text(dump_yaml(RECIPE))
    assert run(["compress", str(folder / "tiny.yaml"), "--out", str(folder / "out")]) == 0
    return folder


@pytest.fixture
def out(finished: Path, tmp_path: Path) -> Path:
    """The run folder in a copy of it all."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    return tmp_path / "out"


def stage_folder(out: Path, name: str) -> Path:
    (folder,) = (out / "stages").glob(f"{name}-*")
    return folder


def cut(path: Path) -> None:
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2])


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(bytes(raw))


def verdict(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "verdict.json").read_text())
    return found


def redone(out: Path, before: int) -> list[str]:
    events = Ledger(out / "ledger.jsonl").events[before:]
    return [e["name"] for e in events if e["event"] == "stage_done"]


@pytest.mark.parametrize("damage", [cut, flip, Path.unlink], ids=["cut off", "one bit", "gone"])
@pytest.mark.parametrize(
    ("stage", "file"),
    [
        ("distilled.seed-0", "student.safetensors"),
        ("quantized_distillation.seed-0", "quantized.safetensors"),
        ("export.artifact.x86-onnxruntime-int8", "artifact.onnx"),
    ],
)
def test_a_damaged_result_is_made_again_with_the_same_bytes(
    stage: str, file: str, damage: Callable[[Path], None], out: Path, edgekd: Command
) -> None:
    path = stage_folder(out, stage) / file
    good, before = path.read_bytes(), len(Ledger(out / "ledger.jsonl").events)
    was = verdict(out)
    damage(path)
    said = edgekd("compress", "tiny.yaml", "--out", "out")
    assert said.code == 0, said.err
    name = stage.replace(".seed", "/seed").replace("export.artifact.", "export/artifact/")
    assert f"{name}: its file {file} is missing or damaged" in said.err
    assert path.read_bytes() == good
    # what was made from it is still right, because it is the same again
    assert redone(out, before) == [name]
    assert verdict(out) == was


def test_training_that_lost_its_checkpoints_too_starts_over(out: Path, edgekd: Command) -> None:
    folder = stage_folder(out, "control.seed-0")
    good = (folder / "student.safetensors").read_bytes()
    (folder / "student.safetensors").unlink()
    for checkpoint in folder.glob("step-*.safetensors"):
        flip(checkpoint)
    said = edgekd("compress", "tiny.yaml", "--out", "out")
    assert said.code == 0, said.err
    assert "control, seed 0: the checkpoint step-" in said.err
    assert "is damaged" in said.err
    assert "control, seed 0: starting over" in said.err
    assert (folder / "student.safetensors").read_bytes() == good


def test_a_delivered_file_that_was_changed_is_delivered_again(out: Path, edgekd: Command) -> None:
    path = out / "artifacts" / "x86-onnxruntime-int8.onnx"
    good = path.read_bytes()
    cut(path)
    (out / "report.json").write_text("{}")
    assert edgekd("compress", "tiny.yaml", "--out", "out").code == 0
    assert path.read_bytes() == good
    assert json.loads((out / "report.json").read_text())["met"] is True


def test_a_ledger_line_that_was_changed_is_refused_and_nothing_touched(
    out: Path, edgekd: Command
) -> None:
    ledger = out / "ledger.jsonl"
    lines = ledger.read_bytes().splitlines(keepends=True)
    lines[4] = lines[4].replace(b"stage", b"stags", 1)
    ledger.write_bytes(b"".join(lines))
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.name != "lock"}
    said = edgekd("compress", "tiny.yaml", "--out", "out")
    assert said.code == 2
    assert said.err.splitlines()[0] == "out/ledger.jsonl is damaged at line 5."
    assert "  to do:    move the run folder away and start again" in said.err
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.name != "lock"} == before


def test_a_ledger_without_its_last_half_line_goes_on(out: Path, edgekd: Command) -> None:
    ledger = out / "ledger.jsonl"
    ledger.write_bytes(ledger.read_bytes()[:-30])
    said = edgekd("compress", "tiny.yaml", "--out", "out", "--json")
    assert (said.code, said.err) == (0, "")
    assert json.loads(said.out) == verdict(out)
    assert Ledger(ledger).last("concluded") is not None


@pytest.mark.parametrize("damage", [cut, flip], ids=["cut off", "one bit"])
def test_stored_outputs_of_the_teacher_are_never_believed(
    damage: Callable[[Path], None], out: Path, edgekd: Command
) -> None:
    (path,) = (out / "teacher_outputs").glob("*/view-0000-0.npy")
    if damage is flip:
        stored = np.load(path)
        np.save(path, -stored)
    else:
        damage(path)
    change = ("--set", "distill.epochs=5")  # the student's training has to read them again
    said = edgekd("compress", "tiny.yaml", "--out", "out", *change)
    assert said.code == 2
    assert f"The stored outputs in {path.parent.relative_to(out.parent)} are not what" in said.err
    assert "  to do:    delete that folder; they will be computed again" in said.err
    shutil.rmtree(path.parent)
    assert edgekd("compress", "tiny.yaml", "--out", "out", *change).code == 0


@pytest.mark.parametrize("name", ["report.html", "verdict.json", "artifacts"])
def test_something_in_the_place_of_a_result_is_named(
    name: str, out: Path, edgekd: Command
) -> None:
    path = out / name
    if path.is_dir():
        shutil.rmtree(path)
        path.write_text("mine")
    else:
        path.unlink()
        path.mkdir()
    said = edgekd("compress", "tiny.yaml", "--out", "out")
    assert said.code == 2
    assert f"out/{name}" in said.err
    assert "cannot be written to" in said.err
    assert list(out.rglob("*.partial")) == []
    if name == "artifacts":
        assert path.read_text() == "mine"


def test_no_verdict_is_left_that_speaks_of_a_file_that_was_replaced(
    out: Path, edgekd: Command
) -> None:
    (out / "report.html").unlink()
    (out / "report.html").mkdir()
    was = verdict(out)
    assert edgekd("compress", "tiny.yaml", "--out", "out").code == 2
    assert verdict(out) == was  # nothing has changed yet
    said = edgekd("compress", "tiny.yaml", "--out", "out", "--set", "quantize.train.epochs=3")
    assert said.code == 2
    assert not (out / "verdict.json").exists()
    (out / "report.html").rmdir()
    assert edgekd("compress", "tiny.yaml", "--out", "out").code == 0
    assert verdict(out) == was
