"""A program spoken to over its standard streams; every wait is bounded, every answer too."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import time
from typing import TYPE_CHECKING, Any

from edgekd.profile.agent.serve import MARK

if TYPE_CHECKING:
    from collections.abc import Sequence

_CHUNK = 1 << 16
_LINE_BYTES = 1 << 16
_NOISE_BYTES = 1 << 16
_COMPLAINT_BYTES = 1 << 13
_LEAVE_S = 5.0


class SilentError(Exception):
    """Nothing came, and nothing could be sent, for as long as was allowed."""


class EndedError(Exception):
    """The program ended before it had answered.

    Attributes:
        code: Its exit code.
        complaint: The end of what it wrote to its standard error.
    """

    def __init__(self, code: int, complaint: str) -> None:
        super().__init__(complaint)
        self.code, self.complaint = code, complaint


class NonsenseError(Exception):
    """What came is not what the agent says; the text tells how."""


class Stream:
    """A started program.

    Args:
        command: Its argument list.

    Raises:
        OSError: It cannot be started.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,  # Ctrl-C is ours, and ends it by closing its streams
        )
        streams = (self._process.stdin, self._process.stdout, self._process.stderr)
        self._in, self._out, self._err = (s.fileno() for s in streams if s is not None)
        for fd in (self._in, self._out, self._err):
            os.set_blocking(fd, False)
        self._inbox, self._complaint = bytearray(), bytearray()
        self._complains = True

    def send(self, data: bytes, *, silence_s: float) -> None:
        """Write all of it.

        Raises:
            SilentError: Not a byte of it was taken for `silence_s`.
            EndedError: The program ended.
        """
        left = memoryview(data)
        while left:
            ready = self._wait({self._in}, time.monotonic() + silence_s)
            if self._in in ready:
                try:
                    left = left[os.write(self._in, left[:_CHUNK]) :]
                except BrokenPipeError:
                    raise self._ended() from None

    def receive(self, *, within_s: float, noise: bool = False) -> dict[str, Any]:
        """The next message's line.

        Args:
            within_s: How long it may take to come.
            noise: Skip lines of others before it, as a login may write them.

        Raises:
            SilentError, EndedError: No message came.
            NonsenseError: Something else did.
        """
        end_s, skipped = time.monotonic() + within_s, 0
        while True:
            line = self._line(end_s)
            if line.startswith(MARK.encode()):
                break
            skipped += len(line)
            if not noise or skipped > _NOISE_BYTES:
                raise NonsenseError("a line that is none of the agent's")
        message = strict_json(line[len(MARK) :])
        if not isinstance(message.get("kind"), str):
            raise NonsenseError("a message of no kind")
        return message

    def payload(self, size: int, *, silence_s: float) -> bytes:
        """Exactly `size` bytes.

        Raises:
            SilentError, EndedError: They did not come.
        """
        while len(self._inbox) < size:
            self._read(time.monotonic() + silence_s, size)
        data = bytes(self._inbox[:size])
        del self._inbox[:size]
        return data

    def close(self) -> None:
        """End the program: by closing its input, and by force if that does not help."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        end_s = time.monotonic() + _LEAVE_S
        while time.monotonic() < end_s:  # what it still says would keep it from ending
            if self._out in self._wait({self._out}, end_s, raises=False) and not self._some(
                self._out
            ):
                break
        try:
            self._process.wait(max(0.1, end_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()

    def _line(self, end_s: float) -> bytes:
        while (at := self._inbox.find(b"\n")) < 0:
            if len(self._inbox) > _LINE_BYTES:
                raise NonsenseError("a line without end")
            self._read(end_s, _LINE_BYTES + 1)
        line = bytes(self._inbox[: at + 1])
        del self._inbox[: at + 1]
        return line

    def _read(self, end_s: float, wanted: int) -> None:
        """Take some more, never much beyond what is wanted."""
        if self._out in self._wait({self._out}, end_s):
            data = self._some(self._out, min(_CHUNK, wanted - len(self._inbox)))
            if not data:
                raise self._ended()
            self._inbox += data

    def _some(self, fd: int, size: int = _CHUNK) -> bytes:
        """What there is, on a stream that is ready; nothing where it has ended."""
        return os.read(fd, size)

    def _wait(self, wanted: set[int], end_s: float, *, raises: bool = True) -> set[int]:
        """Those of `wanted` that are ready; complaints are collected meanwhile."""
        with selectors.DefaultSelector() as selector:
            for fd in wanted:
                event = selectors.EVENT_WRITE if fd == self._in else selectors.EVENT_READ
                selector.register(fd, event)
            if self._complains:
                selector.register(self._err, selectors.EVENT_READ)
            ready = {key.fd for key, _ in selector.select(max(0.0, end_s - time.monotonic()))}
        if self._err in ready:
            self._hear()
        if not ready and raises and time.monotonic() >= end_s:
            raise SilentError
        return ready & wanted

    def _hear(self) -> None:
        data = self._some(self._err)
        self._complains = bool(data)
        self._complaint = (self._complaint + data)[-_COMPLAINT_BYTES:]

    def _ended(self) -> EndedError:
        end_s = time.monotonic() + _LEAVE_S
        while self._complains and time.monotonic() < end_s:
            self._wait(set(), end_s, raises=False)
        try:
            code = self._process.wait(max(0.1, end_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            code = 0
        return EndedError(code, self._complaint.decode(errors="replace"))


def strict_json(text: bytes) -> dict[str, Any]:
    """A JSON object from the other side.

    Raises:
        NonsenseError: It is none, or holds NaN or more levels than anything needs.
    """

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no number")

    try:
        value = json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as e:
        raise NonsenseError(f"no JSON: {type(e).__name__}") from e
    if not isinstance(value, dict):
        raise NonsenseError("JSON that is no object")
    return value
