"""The append-only memory of a run: one JSON line per event, each with its own checksum.

A kill can only cut the last line; reading stops there and the next append repairs it. A whole line
that fails its checksum is corruption and is refused, never skipped.
"""

from __future__ import annotations

import fcntl
import json
import os
from typing import TYPE_CHECKING, Any

from edgekd.core.errors import RunFolderError
from edgekd.core.files import explained_os_errors, sync_folder
from edgekd.core.hashing import sha256_bytes

if TYPE_CHECKING:
    from pathlib import Path

_CHECKSUM_CHARS = 16


class Ledger:
    """Events of a run, in order.

    Args:
        path: The ``ledger.jsonl``; made on the first append.

    Raises:
        RunFolderError: A whole line is damaged, or the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.events, self._good_bytes, self._file_bytes = _read(path)

    def append(self, event: str, **fields: Any) -> dict[str, Any]:
        """Add one event and fsync it before returning it, as it will be read back.

        Raises:
            RunFolderError: The disk is full or read-only (the file is as before), or somebody
                else wrote to the file since it was read.
        """
        body = json.dumps(
            {"event": event, **fields}, sort_keys=True, separators=(",", ":"), allow_nan=False
        )
        line = b"%b %b\n" % (_checksum(body.encode()), body.encode())
        with explained_os_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            is_new = not self.path.exists()
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                self._refuse_foreign(os.fstat(fd).st_size)
                self._write(fd, line)
            finally:
                os.close(fd)
            if is_new:
                sync_folder(self.path.parent)
        self._good_bytes += len(line)
        self._file_bytes = self._good_bytes
        record: dict[str, Any] = json.loads(body)
        self.events.append(record)
        return record

    def last(self, event: str, **match: Any) -> dict[str, Any] | None:
        """The newest event of that name whose fields equal `match`."""
        wanted = {"event": event, **match}
        hits = (r for r in reversed(self.events) if wanted.items() <= r.items())
        return next(hits, None)

    def _refuse_foreign(self, file_bytes: int) -> None:
        if file_bytes != self._file_bytes:
            raise RunFolderError(
                f"{self.path} was changed by another process.",
                expected=f"{self._file_bytes} bytes, as when it was read",
                got=f"{file_bytes} bytes",
                todo="let one edgekd at a time work in a run folder",
            )

    def _write(self, fd: int, line: bytes) -> None:
        """Write the line behind the good bytes, or leave only those."""
        os.ftruncate(fd, self._good_bytes)  # drops what a kill cut in half
        self._file_bytes = self._good_bytes
        try:
            done = 0
            while done < len(line):  # a nearly full disk takes a part, and then refuses
                done += os.pwrite(fd, line[done:], self._good_bytes + done)
            os.fsync(fd)
        except OSError:
            os.ftruncate(fd, self._good_bytes)
            raise


def _checksum(body: bytes) -> bytes:
    return sha256_bytes(body)[:_CHECKSUM_CHARS].encode()


def _read(path: Path) -> tuple[list[dict[str, Any]], int, int]:
    """Events, bytes of whole lines, bytes of the file."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return [], 0, 0
    except OSError as e:
        raise RunFolderError(
            f"{path} cannot be read.",
            got=str(e.strerror),
            todo="check who owns the run folder, or choose another one with --out",
        ) from e
    lines = raw.split(b"\n")
    cut = lines.pop()  # whole lines end in a newline, so only a kill leaves anything here
    events: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        checksum, _, body = line.partition(b" ")
        if checksum != _checksum(body):
            raise RunFolderError(
                f"{path} is damaged at line {number}.",
                expected="a line whose checksum fits",
                got=line[:80].decode(errors="replace"),
                todo="move the run folder away and start again",
            )
        events.append(json.loads(body))
    return events, len(raw) - len(cut), len(raw)
