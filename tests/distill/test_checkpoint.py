from __future__ import annotations

import resource
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekd.core.errors import RunFolderError
from edgekd.distill.checkpoint import Checkpoint, CheckpointFolder


def _checkpoint(step: int, value: float = 1.0) -> Checkpoint:
    tensors = {
        "weight": torch.full((3, 2, 4, 4), value).to(memory_format=torch.channels_last),
        "count": torch.tensor(step),
        "half": torch.arange(3).bfloat16(),
        "empty": torch.zeros(0),
    }
    return Checkpoint(step, tensors, {"history": [{"loss": 0.1 + 0.2}], "epoch_s": 1.5})


def _names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_what_is_written_is_read_back_to_the_bit(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path / "run", "key")
    wrote = _checkpoint(7)
    folder.write(wrote)
    read, complaints = folder.newest()
    assert complaints == ()
    assert read is not None
    assert (read.step, read.numbers) == (7, wrote.numbers)
    assert read.tensors.keys() == wrote.tensors.keys()
    for name, tensor in wrote.tensors.items():
        assert torch.equal(read.tensors[name], tensor)
        assert read.tensors[name].dtype == tensor.dtype


def test_the_two_newest_are_kept_and_orphans_go(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, "key")
    (tmp_path / ".step-0000000001.safetensors.99.partial").write_bytes(b"half")
    (tmp_path / "student.safetensors").write_bytes(b"not a checkpoint")
    for step in (5, 20, 100):
        folder.write(_checkpoint(step))
    assert _names(tmp_path) == [
        "step-0000000020.safetensors",
        "step-0000000100.safetensors",
        "student.safetensors",
    ]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(place=st.floats(0, 1, exclude_max=True), cut=st.booleans(), bit=st.integers(0, 7))
def test_any_flipped_bit_or_cut_falls_back_to_the_one_before(
    tmp_path: Path, place: float, cut: bool, bit: int
) -> None:
    folder = CheckpointFolder(tmp_path, "key")
    folder.write(_checkpoint(1))
    folder.write(_checkpoint(2))
    newest = tmp_path / "step-0000000002.safetensors"
    content = bytearray(newest.read_bytes())
    at = int(place * len(content))
    if cut:
        content = content[:at]
    else:
        content[at] ^= 1 << bit
    newest.write_bytes(content)
    read, complaints = folder.newest()
    assert read is not None
    assert read.step == 1
    assert len(complaints) == 1
    assert "the checkpoint step-0000000002.safetensors is " in complaints[0]


def test_with_both_damaged_there_is_none(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, "key")
    for step in (1, 2):
        folder.write(_checkpoint(step))
        (tmp_path / f"step-{step:010d}.safetensors").write_bytes(b"")
    read, complaints = folder.newest()
    assert read is None
    assert [line[:49] for line in complaints] == [
        "the checkpoint step-0000000002.safetensors is dam",
        "the checkpoint step-0000000001.safetensors is dam",
    ]


def test_a_checkpoint_of_another_training_is_not_used(tmp_path: Path) -> None:
    CheckpointFolder(tmp_path, "other").write(_checkpoint(9))
    read, complaints = CheckpointFolder(tmp_path, "key").newest()
    assert read is None
    assert complaints == (
        "the checkpoint step-0000000009.safetensors is of a training with other settings",
    )


def test_tensors_that_share_memory_are_stored_each(tmp_path: Path) -> None:
    weight = torch.randn(4, 4)
    folder = CheckpointFolder(tmp_path, "key")
    folder.write(Checkpoint(1, {"a": weight, "b": weight, "c": weight[0]}, {}))
    read, _ = folder.newest()
    assert read is not None
    assert torch.equal(read.tensors["a"], weight)
    assert torch.equal(read.tensors["b"], weight)
    assert torch.equal(read.tensors["c"], weight[0])


def test_clear_leaves_other_files_alone(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, "key")
    folder.write(_checkpoint(1))
    (tmp_path / "notes.txt").write_text("mine")
    folder.clear()
    assert _names(tmp_path) == ["notes.txt"]
    CheckpointFolder(tmp_path / "never", "key").clear()


def test_a_full_disk_is_one_clear_error_and_keeps_the_older_checkpoint(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, "key")
    folder.write(_checkpoint(1))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))  # no file may grow beyond 100 bytes
    try:
        with pytest.raises(RunFolderError) as error:
            folder.write(_checkpoint(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "step-0000000002.safetensors could not be written" in str(error.value)
    assert _names(tmp_path) == ["step-0000000001.safetensors"]
    read, _ = folder.newest()
    assert read is not None
    assert read.step == 1
