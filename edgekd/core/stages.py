"""A run is a folder: a lock, a ledger, and one content-addressed folder per stage.

A stage is named by what it needs: its settings and the hashes of what it reads. The same needs
give the same folder, so a finished stage is reused, a killed one continues in its own folder, and
a changed recipe redoes exactly what depends on the change.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgekd.core.errors import EdgekdError, RunFolderError
from edgekd.core.files import explained_os_errors
from edgekd.core.hashing import sha256_file, sha256_json
from edgekd.core.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgekd.core.progress import Progress

_KEY_CHARS = 16
_HASH = re.compile("[0-9a-f]{64}")
_SHOWN_HASH_CHARS = 12


@dataclass(frozen=True, slots=True)
class Stage:
    """A finished stage.

    Attributes:
        name: E.g. "student/seed-0".
        key: Hash of what it needed.
        folder: Where its files are.
        result: What it returned; JSON values only.
        files: Relative path -> sha256 of every file it declared.
        seconds: How long the work took when it was done.
        reused: It was finished before this call.
        reason: Why it was reused or done, in a few words.
    """

    name: str
    key: str
    folder: Path
    result: dict[str, Any]
    files: dict[str, str]
    seconds: float
    reused: bool
    reason: str

    def file(self, name: str) -> Path:
        """Path of one declared file."""
        if name not in self.files:
            raise KeyError(f"stage {self.name!r} declared {sorted(self.files)}, not {name!r}")
        return self.folder / name


class Run:
    """An open run folder; a context manager that holds its lock.

    Args:
        folder: Made when missing.
        progress: Gets one line per stage.

    Raises:
        RunFolderError: Another process holds the folder, or it cannot be written.
    """

    def __init__(self, folder: Path, progress: Progress) -> None:
        self.folder, self.progress = folder, progress
        self.stages: list[Stage] = []
        with explained_os_errors(folder / "lock"):
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            owner = os.pread(self._lock, 64, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._lock)
            raise RunFolderError(
                f"Another edgekd is working in {folder}.",
                got=f"the lock is held by process {owner}",
                todo="wait for it to end, or choose another folder with --out",
            ) from e
        try:
            with explained_os_errors(folder / "lock"):
                os.ftruncate(self._lock, 0)
                os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)
            self.ledger = Ledger(folder / "ledger.jsonl")
        except BaseException:
            os.close(self._lock)
            raise

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._lock)  # also frees the flock

    def stage(
        self,
        name: str,
        needs: dict[str, Any],
        work: Callable[[Path], tuple[dict[str, Any], list[str]]],
    ) -> Stage:
        """Reuse the stage with these needs, or do it.

        Args:
            name: Of the stage; may hold "/".
            needs: JSON values that decide the result.
            work: Gets the stage's folder, where a killed attempt may have left checkpoints;
                returns its result and the files (relative names) that belong to it. An
                EdgekdError of its is recorded, and passes on.
        """
        key = sha256_json(needs)[:_KEY_CHARS]
        folder = self.folder / "stages" / f"{name.replace('/', '.')}-{key}"
        before = self._before(name, needs)
        done = self.ledger.last("stage_done", name=name, key=key)
        if done is not None:
            damaged = _first_damaged(folder, done["files"])
            if damaged is None:
                return self._keep(Stage(**_of(done), folder=folder, reused=True, reason="same"))
            reason = f"its file {damaged} is missing or damaged"
        elif self.ledger.last("stage_started", name=name, key=key) is not None:
            reason = "continues where it was stopped"
        elif before is not None:
            reason = _difference(before["needs"], needs)
        else:
            reason = "first time"
        with explained_os_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        self.ledger.append("stage_started", name=name, key=key, needs=needs)
        if before is not None or reason.startswith("continues"):
            self.progress.say(f"{name}: {reason}")
        start_ns = time.perf_counter_ns()
        try:
            with explained_os_errors(folder):
                result, names = work(folder)
        except EdgekdError as e:
            if not isinstance(e, RunFolderError):  # a ledger on a full disk takes no more
                self.ledger.append("stage_failed", name=name, key=key, error=e.message)
            raise
        record = self.ledger.append(
            "stage_done",
            name=name,
            key=key,
            needs=needs,
            result=result,
            files={n: sha256_file(folder / n) for n in sorted(names)},
            seconds=round((time.perf_counter_ns() - start_ns) / 1e9, 3),
        )
        return self._keep(Stage(**_of(record), folder=folder, reused=False, reason=reason))

    def _before(self, name: str, needs: dict[str, Any]) -> dict[str, Any] | None:
        """What an earlier call left that is most like this stage; schemes share names."""
        mine = {stage.key for stage in self.stages if stage.name == name}
        done = [
            event
            for event in self.ledger.events
            if event["event"] == "stage_done"
            and event["name"] == name
            and event["key"] not in mine
        ]
        return min(reversed(done), key=lambda e: _distance(e["needs"], needs), default=None)

    def _keep(self, stage: Stage) -> Stage:
        self.stages.append(stage)
        return stage


def _of(record: dict[str, Any]) -> dict[str, Any]:
    # through JSON, so that a stage done now and one read back are the same values
    plain = json.loads(json.dumps(record))
    return {k: plain[k] for k in ("name", "key", "result", "files", "seconds")}


def _first_damaged(folder: Path, files: dict[str, str]) -> str | None:
    for name, sha256 in files.items():
        path = folder / name
        if not path.is_file() or sha256_file(path) != sha256:
            return name
    return None


def _difference(old: Any, new: Any, path: str = "") -> str:
    """The first field that differs, as ``path: old -> new``."""
    if isinstance(old, dict) and isinstance(new, dict):
        for k in sorted({*old, *new}):
            if old.get(k) != new.get(k):
                return _difference(old.get(k), new.get(k), f"{path}.{k}".lstrip("."))
    return f"{path} changed: {_short(old)} -> {_short(new)}"


def _distance(old: dict[str, Any], new: dict[str, Any]) -> int:
    """How many of the fields differ."""
    return sum(old.get(k) != new.get(k) for k in {*old, *new})


def _short(value: Any) -> str:
    if isinstance(value, str) and _HASH.fullmatch(value):
        return value[:_SHOWN_HASH_CHARS]
    text = json.dumps(value)
    return text if len(text) <= 48 else text[:45] + "..."
