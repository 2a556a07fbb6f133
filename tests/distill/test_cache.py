from __future__ import annotations

import errno
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from edgekd.core.errors import DataError, RecipeError, RunFolderError
from edgekd.core.progress import Silent
from edgekd.distill import cache
from edgekd.distill.augment import apply_view
from edgekd.distill.cache import TeacherOutputs
from edgekd.distill.objectives._contract import LOGITS
from edgekd.distill.settings import Augment, TrainSettings
from edgekd.tasks._contract import Data

_AUGMENT = Augment(crop_px=1, flip=True, views=3)


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """90 samples in 9 chunks, synced after every second one."""
    monkeypatch.setattr(cache, "_CHUNK", 10)
    monkeypatch.setattr(cache, "_CHUNKS_PER_SYNC", 2)


def _open(folder: Path, teacher: Any, data: Data, progress: Any = None, **more: Any) -> Any:
    fields = {"augment": _AUGMENT, "epochs": 5, **more}
    return TeacherOutputs.open(folder, teacher, data, progress=progress or Silent(), **fields)


def _asked_for_checks(teacher: Any, call: Any) -> int:
    before = teacher.asked
    call()
    return int(teacher.asked - before)


def test_stored_outputs_are_what_the_teacher_says_about_each_view(
    tmp_path: Path, teacher: Any, data: Data
) -> None:
    stored = _open(tmp_path, teacher, data, taps=("0", LOGITS))
    assert stored.views == 3
    assert stored.shapes == {LOGITS: (4,), "0": (6, 6, 6)}
    indices = np.array([88, 3, 40])
    for view in range(3):
        plain = torch.from_numpy(data.train.batch(indices))
        seen = apply_view(plain, indices, _AUGMENT, view=view, seed=0)
        said = stored.batch(view, indices)
        assert said[LOGITS].dtype == said["0"].dtype == torch.float32
        # other batch, other order of sums: rounding of float32
        torch.testing.assert_close(said[LOGITS], teacher.net(seen), rtol=1e-5, atol=1e-6)
        # stored in float16: 11 significant bits
        torch.testing.assert_close(said["0"], teacher.taps(seen, ["0"])["0"], rtol=1e-3, atol=1e-3)


def test_a_second_call_asks_only_for_the_spot_check(
    tmp_path: Path, teacher: Any, data: Data, told: Any
) -> None:
    _open(tmp_path, teacher, data)
    again = _asked_for_checks(teacher, lambda: _open(tmp_path, teacher, data, told))
    assert again == 16
    assert told.bars == []


def test_more_epochs_add_views_and_keep_the_old_ones(
    tmp_path: Path, teacher: Any, data: Data, told: Any
) -> None:
    first = _open(tmp_path, teacher, data, epochs=1)
    assert first.views == 1
    more = _asked_for_checks(teacher, lambda: _open(tmp_path, teacher, data, told))
    assert more == 2 * 90 + 16
    assert told.bars == [("teacher outputs", 27, 9)]
    assert told.advanced == 18


class _DiesLater:
    """Raises after a number of batches, as a kill would end the work."""

    def __init__(self, inner: Any, batches: int) -> None:
        self.inner, self.left, self.sha256 = inner, batches, inner.sha256
        self.module = inner.module

    def taps(self, inputs: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        return self.inner.taps(inputs, names)  # type: ignore[no-any-return]


@pytest.mark.parametrize("batches", [0, 1, 5, 13])
def test_interrupted_work_continues_at_the_last_sync(
    tmp_path: Path, teacher: Any, data: Data, told: Any, batches: int
) -> None:
    with pytest.raises(KeyboardInterrupt):
        _open(tmp_path / "cut", _DiesLater(teacher, batches), data)
    continued = _open(tmp_path / "cut", teacher, data, told)
    whole = _open(tmp_path / "whole", teacher, data)
    every = np.arange(90)
    for view in range(3):
        assert torch.equal(continued.batch(view, every)[LOGITS], whole.batch(view, every)[LOGITS])
    chunks_kept = told.bars[0][2]
    assert batches - 2 < chunks_kept <= batches
    if chunks_kept:
        assert told.lines == [f"teacher outputs: continuing, {chunks_kept} of 27 chunks are there"]


@pytest.mark.parametrize("change", ["teacher", "data", "augment", "view_seed", "taps"])
def test_anything_that_decides_the_outputs_makes_them_anew(
    tmp_path: Path, teacher: Any, data: Data, told: Any, change: str
) -> None:
    old = _open(tmp_path, teacher, data)
    more: dict[str, Any] = {}
    if change == "teacher":
        teacher.sha256 = "another"
    elif change == "data":
        data = replace(data, fingerprint="another")
    elif change == "augment":
        more = {"augment": Augment(crop_px=1, views=3)}
    else:
        more = {"view_seed": 4} if change == "view_seed" else {"taps": ("0",)}
    new = _open(tmp_path, teacher, data, told, **more)
    assert told.lines == [
        "teacher outputs: what is stored belongs to other settings, computing anew"
    ]
    assert told.bars[0][1:] == (27, 0)
    assert new.key != old.key


def test_without_changes_there_is_one_view(tmp_path: Path, teacher: Any, data: Data) -> None:
    stored = _open(tmp_path, teacher, data, augment=Augment(views=8), epochs=30)
    assert stored.views == 1
    indices = np.arange(90)
    plain = torch.from_numpy(data.train.batch(indices))
    torch.testing.assert_close(stored.batch(0, indices)[LOGITS], teacher.net(plain))


def test_another_teacher_under_the_same_hash_is_found_out(
    tmp_path: Path, teacher: Any, data: Data
) -> None:
    _open(tmp_path, teacher, data)
    with torch.no_grad():
        teacher.net[6].weight.mul_(-1)
    with pytest.raises(DataError) as error:
        _open(tmp_path, teacher, data)
    text = str(error.value)
    assert f"The stored outputs in {tmp_path} are not what this teacher says." in text
    assert "expected: cosine above 0.9999 with a fresh computation" in text
    assert "delete that folder; they will be computed again" in text


def test_a_teacher_of_another_size_of_output_is_found_out(
    tmp_path: Path, teacher: Any, data: Data
) -> None:
    # the direction is the same, only the size differs: cosine alone would not notice
    _open(tmp_path, teacher, data)
    with torch.no_grad():
        teacher.net[6].weight.mul_(1.01)
        teacher.net[6].bias.mul_(1.01)
    with pytest.raises(DataError, match="are not what this teacher says"):
        _open(tmp_path, teacher, data)


@pytest.mark.parametrize("damage", ["missing", "cut", "empty", "other"])
def test_a_damaged_file_is_found_out(
    tmp_path: Path, teacher: Any, data: Data, damage: str
) -> None:
    _open(tmp_path, teacher, data)
    path = tmp_path / "view-0001-0.npy"
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:300])
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        np.save(path, np.zeros((5, 4), np.float32))
    with pytest.raises(DataError) as error:
        _open(tmp_path, teacher, data)
    assert "view-0001-0.npy" in str(error.value)
    assert "delete that folder" in str(error.value)


def test_a_damaged_list_of_contents_starts_over(
    tmp_path: Path, teacher: Any, data: Data, told: Any
) -> None:
    _open(tmp_path, teacher, data)
    (tmp_path / "meta.json").write_text("{")
    _open(tmp_path, teacher, data, told)
    assert told.lines == ["teacher outputs: meta.json is damaged, computing anew"]
    assert json.loads((tmp_path / "meta.json").read_text())["rows"] == {"0": 90, "1": 90, "2": 90}


def test_a_teacher_that_says_nan_is_refused_by_sample(
    tmp_path: Path, teacher: Any, data: Data
) -> None:
    data.train.inputs[37, 0, 2, 2] = np.inf  # type: ignore[attr-defined]
    with pytest.raises(DataError) as error:
        _open(tmp_path, teacher, data)
    assert "The teacher's 'logits' is not finite for train sample 37." in str(error.value)


def test_a_tap_beyond_float16_is_refused(tmp_path: Path, teacher: Any, data: Data) -> None:
    with torch.no_grad():
        teacher.net[0].weight.mul_(1e6)
    with pytest.raises(DataError) as error:
        _open(tmp_path, teacher, data, taps=("0",))
    assert "The teacher's '0' is not finite for train sample" in str(error.value)
    assert "numbers that fit float16" in str(error.value)


def test_a_full_disk_is_one_clear_error(
    tmp_path: Path, teacher: Any, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(RunFolderError) as error:
        _open(tmp_path, teacher, data)
    assert "view-0000-0.npy could not be written" in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "fields",
    [
        {"augment": Augment(crop_px=2, flip=True, views=3)},
        {"augment": Augment(crop_px=1, views=3)},
        {"augment": Augment(crop_px=1, flip=True, views=4)},
        {"augment": Augment(crop_px=1, flip=True, views=0)},
    ],
)
def test_a_training_on_other_views_is_refused(
    tmp_path: Path, teacher: Any, data: Data, fields: dict[str, Any]
) -> None:
    stored = _open(tmp_path, teacher, data)
    stored.check(TrainSettings(epochs=5, augment=_AUGMENT), 0)
    with pytest.raises(RecipeError) as error:
        stored.check(TrainSettings(epochs=5, **fields), 0)
    text = str(error.value)
    assert "The training and the stored outputs of the teacher see different samples." in text
    assert "(1, True, 0) and at most 3 views" in text


def test_a_training_with_another_view_seed_is_refused(
    tmp_path: Path, teacher: Any, data: Data
) -> None:
    stored = _open(tmp_path, teacher, data)
    with pytest.raises(RecipeError, match="see different samples"):
        stored.check(TrainSettings(epochs=5, augment=_AUGMENT), 1)


def test_the_teacher_is_left_in_its_memory_layout(
    tmp_path: Path, teacher: Any, data: Data
) -> None:
    before = {name: t.clone() for name, t in teacher.net.state_dict().items()}
    layouts: list[bool] = []
    # one input channel: width and channel step of the weight tell the layouts apart
    teacher.net[0].register_forward_hook(lambda layer, *_: layouts.append(layer.weight.stride()))
    plain = teacher.net[0].weight.stride()
    _open(tmp_path, teacher, data)
    assert layouts[0] != plain  # pixel by pixel while views are computed
    assert layouts[-1] == plain  # as it was for the spot check
    assert teacher.net[0].weight.stride() == plain
    assert all(torch.equal(t, before[name]) for name, t in teacher.net.state_dict().items())
