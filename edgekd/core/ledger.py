"""The append-only memory of a run: one JSON line per event, each with its own checksum.

A kill can only cut the last line; reading stops there and the next append repairs it. A line in
the middle that fails its checksum is corruption and is refused, never skipped.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from edgekd.core.errors import RunFolderError
from edgekd.core.files import explained_os_errors
from edgekd.core.hashing import sha256_bytes

if TYPE_CHECKING:
    from pathlib import Path

_CHECKSUM_CHARS = 16


class Ledger:
    """Events of a run, in order.

    Args:
        path: The ``ledger.jsonl``; made on the first append.

    Raises:
        RunFolderError: A line other than the last is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.events, self._good_bytes = _read(path)

    def append(self, event: str, **fields: Any) -> dict[str, Any]:
        """Add one event and fsync it before returning."""
        record = {"event": event, **fields}
        body = json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False)
        line = f"{_checksum(body)} {body}\n".encode()
        with explained_os_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o644)
            try:
                os.ftruncate(fd, self._good_bytes)  # drops what a kill cut in half
                os.lseek(fd, 0, os.SEEK_END)
                written = os.write(fd, line)
                if written != len(line):  # a nearly full disk takes part of it
                    os.ftruncate(fd, self._good_bytes)
                    os.write(fd, line)  # raises ENOSPC
                os.fsync(fd)
            finally:
                os.close(fd)
        self._good_bytes += len(line)
        self.events.append(record)
        return record

    def last(self, event: str, **match: Any) -> dict[str, Any] | None:
        """The newest event of that name whose fields equal `match`."""
        wanted = {"event": event, **match}
        hits = (r for r in reversed(self.events) if wanted.items() <= r.items())
        return next(hits, None)


def _checksum(body: str) -> str:
    return sha256_bytes(body.encode())[:_CHECKSUM_CHARS]


def _read(path: Path) -> tuple[list[dict[str, Any]], int]:
    if not path.exists():
        return [], 0
    events: list[dict[str, Any]] = []
    good = 0
    raw = path.read_bytes()
    lines = raw.splitlines(keepends=True)
    for number, line in enumerate(lines, start=1):
        text = line.decode(errors="replace")
        checksum, _, body = text.rstrip("\n").partition(" ")
        whole = text.endswith("\n") and checksum == _checksum(body)
        if not whole:
            if number == len(lines):
                break  # cut by a kill
            raise RunFolderError(
                f"{path} is damaged at line {number}.",
                expected="a line whose checksum fits",
                got=text[:80],
                todo="move the run folder away and start again",
            )
        events.append(json.loads(body))
        good += len(line)
    return events, good
