"""What the teacher says about every view of every train sample, computed once and kept on disk.

A student trained for 100 epochs on 8 views needs 8 passes of the teacher instead of 100, and every
further seed and arm needs none. Per view there is one file of logits (float32) and one per tap
(float16), written in chunks: a kill loses one chunk.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from edgekd.core.errors import DataError, RecipeError
from edgekd.core.files import atomic_write, explained_os_errors
from edgekd.core.hashing import sha256_json
from edgekd.distill.augment import apply_view, check_augment
from edgekd.distill.feed import resident
from edgekd.distill.objectives._contract import LOGITS
from edgekd.distill.precision import fast_layout

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from edgekd.core.progress import Progress
    from edgekd.distill.settings import Augment, TrainSettings
    from edgekd.tasks._contract import Data, Split

_CHUNK = 512
_CHUNKS_PER_SYNC = 16
_SPOT_CHECKS = 16
_MIN_COSINE = 0.9999
#: largest difference of a stored and a recomputed output, against the largest stored one;
#: float32 sums in another order differ by about 1e-6, float16 storage by 5e-4
_MAX_RELATIVE = {"float32": 1e-3, "float16": 4e-3}


class Outputs(Protocol):
    """What the cache needs of a teacher."""

    @property
    def sha256(self) -> str:
        """What its outputs depend on."""

    @property
    def module(self) -> nn.Module | None:
        """The network, if it is one; its memory layout may be changed, its values not."""

    def taps(self, inputs: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        """Outputs of eval mode by layer path, each (B, ...); `LOGITS` names the last one."""


@dataclass(frozen=True)
class TeacherOutputs:
    """Stored outputs of one teacher for the train split of one data set.

    Attributes:
        key: What the content depends on; the number of views is not part of it.
        shapes: Shape of one sample of each tap, logits included.
        augment: Whose views these are.
        view_seed: Of the views.
        views: How many are there.
    """

    key: str
    shapes: Mapping[str, tuple[int, ...]]
    augment: Augment
    view_seed: int
    views: int
    _arrays: tuple[Mapping[str, NDArray[Any]], ...] = field(repr=False)

    @classmethod
    def open(
        cls,
        folder: Path,
        teacher: Outputs,
        data: Data,
        *,
        augment: Augment,
        epochs: int,
        progress: Progress,
        taps: Sequence[str] = (),
        view_seed: int = 0,
        title: str = "teacher outputs",
    ) -> TeacherOutputs:
        """Compute what is missing in `folder`, and check a few stored outputs against the teacher.

        Args:
            folder: For these outputs only; what belongs to other ones is replaced.
            teacher: Asked once per view and sample.
            data: Its train split is shown to the teacher.
            augment: Decides the views.
            epochs: Of the longest training that will read the outputs.
            progress: Told about every chunk.
            taps: Inner activations to keep besides the logits.
            view_seed: Of the views.
            title: What the user calls this work.

        Raises:
            DataError: The teacher gives NaN or infinity, or stored outputs are not its own.
            RunFolderError: The disk is full or read-only.
        """
        check_augment(augment, data.input_shape)
        names = (LOGITS, *sorted(set(taps) - {LOGITS}))
        key = sha256_json(
            {
                "schema": 1,
                "teacher": teacher.sha256,
                "data": data.fingerprint,
                "augment": augment.model_dump(exclude={"views"}),
                "view_seed": view_seed,
                "taps": names,
            }
        )
        split = resident(data.train, data.input_shape)
        store = _Store(folder, key, names, teacher, split, augment, view_seed)
        views = augment.view_count(epochs)
        store.complete(views, progress, title)
        arrays = tuple(store.read(view) for view in range(views))
        store.spot_check(arrays)
        shapes = {name: array.shape[1:] for name, array in arrays[0].items()}
        return cls(key, shapes, augment, view_seed, views, arrays)

    def batch(self, view: int, indices: NDArray[np.int64]) -> dict[str, Tensor]:
        """Every tap of those samples in that view, float32, (B, ...)."""
        stored = self._arrays[view]
        return {
            name: torch.from_numpy(np.asarray(array[indices], np.float32))
            for name, array in stored.items()
        }

    def check(self, settings: TrainSettings, view_seed: int) -> None:
        """Refuse a training that would look at other views than the teacher did.

        Raises:
            RecipeError: Augmentation, number of views or seed differ.
        """
        mine = (self.augment.crop_px, self.augment.flip, self.view_seed)
        wanted = (settings.augment.crop_px, settings.augment.flip, view_seed)
        needed = settings.augment.view_count(settings.epochs)
        if mine != wanted or needed > self.views:
            raise RecipeError(
                "The training and the stored outputs of the teacher see different samples.",
                expected=f"crop_px, flip, view seed {mine} and at most {self.views} views",
                got=f"{wanted} and {needed} views",
                todo="open the teacher's outputs with the augment and epochs of the training",
            )


@dataclass
class _Store:
    """The folder: one file per view and tap, and `meta.json` with the rows that are done."""

    folder: Path
    key: str
    names: tuple[str, ...]
    teacher: Outputs
    split: Split
    augment: Augment
    view_seed: int

    def complete(self, views: int, progress: Progress, title: str) -> None:
        rows = self._rows_done(progress, title)
        chunks = -(-len(self.split) // _CHUNK)
        done = sum(-(-rows.get(view, 0) // _CHUNK) for view in range(views))
        if done == chunks * views:
            return
        if done:
            progress.say(f"{title}: continuing, {done} of {chunks * views} chunks are there")
        bar_of_chunks = progress.bar(title, chunks * views, done)
        with fast_layout(self.teacher.module), bar_of_chunks as bar:
            for view in range(views):
                self._fill(view, rows, bar)

    def _fill(self, view: int, rows: dict[int, int], bar: Any) -> None:
        total, arrays = len(self.split), dict[str, Any]()
        if rows.get(view, 0):
            arrays = self.read(view, mode="r+")
        for start in range(rows.get(view, 0), total, _CHUNK):
            indices = np.arange(start, min(start + _CHUNK, total))
            for name, output in self._ask(view, indices).items():
                if name not in arrays:
                    arrays[name] = self._make(view, name, output)
                arrays[name][indices] = output
            bar.advance(1, f"view {view + 1}")
            finished = indices[-1] + 1 == total
            if finished or (start // _CHUNK + 1) % _CHUNKS_PER_SYNC == 0:
                for array in arrays.values():
                    array.flush()
                rows[view] = int(indices[-1]) + 1
                self._write_meta(rows)

    def read(self, view: int, mode: Any = "r") -> dict[str, NDArray[Any]]:
        """The files of a view, mapped.

        Raises:
            DataError: A file is missing, cut off or of another shape.
        """
        arrays = {}
        for name in self.names:
            path = self._path(view, name)
            try:
                array = np.load(path, mmap_mode=mode, allow_pickle=False)
            except (OSError, ValueError, EOFError) as e:
                raise self._spoiled(f"{path.name}: {e}") from e
            if len(array) != len(self.split):
                raise self._spoiled(f"{path.name} has {len(array)} rows, not {len(self.split)}")
            arrays[name] = array
        return arrays

    def spot_check(self, arrays: Sequence[Mapping[str, NDArray[Any]]]) -> None:
        """Recompute a few stored outputs; other ones at every call, so that damage is found.

        Raises:
            DataError: One differs by more than rounding.
        """
        draw = np.random.default_rng()
        for view in draw.choice(len(arrays), min(2, len(arrays)), replace=False):
            count = min(_SPOT_CHECKS // min(2, len(arrays)), len(self.split))
            indices = np.sort(draw.choice(len(self.split), count, replace=False))
            live = self._ask(int(view), indices)
            for name, array in arrays[view].items():
                self._compare(name, int(view), array[indices], live[name])

    def _compare(self, name: str, view: int, stored: NDArray[Any], live: NDArray[Any]) -> None:
        a = stored.reshape(len(stored), -1).astype(np.float64)
        b = live.reshape(len(live), -1).astype(np.float64)
        size = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        cosine = np.where(size > 0, (a * b).sum(1) / np.maximum(size, 1e-300), 1.0).min()
        largest = np.abs(a - b).max() / max(np.abs(a).max(), 1e-12)
        if not (cosine > _MIN_COSINE and largest <= _MAX_RELATIVE[str(stored.dtype)]):
            raise self._spoiled(
                f"{name} in view {view}: cosine {cosine:.6f}, largest difference"
                f" {100 * largest:.3g} % of the largest value"
            )

    def _ask(self, view: int, indices: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        plain = torch.from_numpy(self.split.batch(indices))
        inputs = apply_view(plain, indices, self.augment, view=view, seed=self.view_seed)
        with torch.no_grad():
            said = self.teacher.taps(inputs, self.names)
        out = {}
        for name in self.names:
            kept = np.float32 if name == LOGITS else np.float16
            with np.errstate(over="ignore"):  # seen as infinity right below
                out[name] = said[name].detach().float().numpy().astype(kept)
            finite = np.isfinite(out[name]).reshape(len(indices), -1).all(1)
            if not finite.all():
                row = int(indices[np.argmin(finite)])
                raise DataError(
                    f"The teacher's {name!r} is not finite for train sample {row}.",
                    expected=f"numbers that fit {np.dtype(kept)}",
                    todo="look at that sample and at the teacher's weights",
                )
        return out

    def _make(self, view: int, name: str, output: NDArray[Any]) -> Any:
        path, shape = self._path(view, name), (len(self.split), *output.shape[1:])
        try:
            with explained_os_errors(path):
                self.folder.mkdir(parents=True, exist_ok=True)
                array = np.lib.format.open_memmap(path, mode="w+", dtype=output.dtype, shape=shape)
                with path.open("r+b") as file:  # a full disk must show here, not as a bus error
                    os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except Exception:
            path.unlink(missing_ok=True)
            raise
        return array

    def _rows_done(self, progress: Progress, title: str) -> dict[int, int]:
        """Rows per view that are on disk; anything of another key is removed."""
        path = self.folder / "meta.json"
        try:
            meta = json.loads(path.read_text())
            if meta["key"] == self.key:
                return {int(view): int(rows) for view, rows in meta["rows"].items()}
            progress.say(f"{title}: what is stored belongs to other settings, computing anew")
        except FileNotFoundError:
            pass
        except (ValueError, KeyError, TypeError, AttributeError):
            progress.say(f"{title}: {path.name} is damaged, computing anew")
        if self.folder.is_dir():
            with explained_os_errors(self.folder):
                for old in [*self.folder.glob("view-*.npy"), path]:
                    old.unlink(missing_ok=True)
        return {}

    def _write_meta(self, rows: Mapping[int, int]) -> None:
        meta = {"key": self.key, "taps": self.names, "rows": {str(v): n for v, n in rows.items()}}
        atomic_write(self.folder / "meta.json", json.dumps(meta, indent=1))

    def _path(self, view: int, name: str) -> Path:
        return self.folder / f"view-{view:04d}-{self.names.index(name)}.npy"

    def _spoiled(self, got: str) -> DataError:
        return DataError(
            f"The stored outputs in {self.folder} are not what this teacher says.",
            expected=f"cosine above {_MIN_COSINE} with a fresh computation",
            got=got,
            todo="delete that folder; they will be computed again",
        )
