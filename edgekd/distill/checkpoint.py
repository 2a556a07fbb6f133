"""Checkpoints: safetensors with a checksum, no pickle, the two newest kept.

One file holds everything, so a kill leaves either the whole checkpoint or none of it.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from edgekd.core.files import atomic_write, explained_os_errors

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

_NAME = re.compile(r"^step-(\d{10})\.safetensors$")
_KEPT = 2
#: what a killed writer leaves behind
_ORPHANS = ".step-*.partial"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state of a training between two steps.

    Attributes:
        step: Steps done.
        tensors: By name; contiguous, on the CPU.
        numbers: Everything else, JSON values.
    """

    step: int
    tensors: Mapping[str, Tensor]
    numbers: Mapping[str, Any]


class CheckpointFolder:
    """The checkpoints of one training.

    Args:
        folder: Made when the first checkpoint is written.
        key: What the training depends on; checkpoints of another key are not used.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder, self.key = folder, key

    def write(self, checkpoint: Checkpoint) -> None:
        """Write one and drop all but the newest two.

        Raises:
            RunFolderError: The disk is full or read-only; older checkpoints stay as they are.
        """
        tensors = {name: t.detach().contiguous() for name, t in checkpoint.tensors.items()}
        tensors = _unshared(tensors)
        numbers = json.dumps(
            {"step": checkpoint.step, "key": self.key, **checkpoint.numbers}, allow_nan=False
        )
        metadata = {"numbers": numbers, "sha256": _digest(tensors, numbers)}
        path = self.folder / f"step-{checkpoint.step:010d}.safetensors"
        atomic_write(path, save(tensors, metadata))
        with explained_os_errors(path):
            for old in [*self._paths()[_KEPT:], *self.folder.glob(_ORPHANS)]:
                old.unlink(missing_ok=True)

    def newest(self) -> tuple[Checkpoint | None, tuple[str, ...]]:
        """The newest usable checkpoint, and a line for each newer one that is not usable."""
        complaints = []
        for path in self._paths():
            try:
                checkpoint, key = _read(path)
            except (OSError, SafetensorError, ValueError, KeyError, TypeError) as e:
                text = (str(e).splitlines() or [""])[0]
                complaints.append(f"the checkpoint {path.name} is damaged ({text})")
                continue
            if key == self.key:
                return checkpoint, tuple(complaints)
            complaints.append(f"the checkpoint {path.name} is of a training with other settings")
        return None, tuple(complaints)

    def clear(self) -> None:
        """Drop every checkpoint, and what killed writers left behind."""
        if self.folder.is_dir():
            with explained_os_errors(self.folder):
                for path in [*self._paths(), *self.folder.glob(_ORPHANS)]:
                    path.unlink(missing_ok=True)

    def _paths(self) -> list[Path]:
        """Newest first."""
        if not self.folder.is_dir():
            return []
        return sorted((p for p in self.folder.iterdir() if _NAME.match(p.name)), reverse=True)


def _read(path: Path) -> tuple[Checkpoint, str]:
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    numbers = metadata["numbers"]
    if metadata["sha256"] != _digest(tensors, numbers):
        raise ValueError("its checksum does not match")
    fields = json.loads(numbers)
    step, key = fields.pop("step"), fields.pop("key")
    return Checkpoint(step, tensors, fields), key


def _digest(tensors: Mapping[str, Tensor], numbers: str) -> str:
    h = hashlib.sha256(numbers.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        h.update(f"|{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        h.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return h.hexdigest()


def _unshared(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies of tensors that share memory: safetensors stores each name on its own."""
    seen: set[int] = set()
    out = {}
    for name, tensor in tensors.items():
        address = tensor.untyped_storage().data_ptr()
        out[name] = tensor.clone() if address in seen else tensor
        seen.add(address)
    return out
