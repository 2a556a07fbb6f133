"""A connection to edgekd's agent: started, asked, and made once more when it breaks."""

from __future__ import annotations

import json
from importlib import resources
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from edgekd.profile.agent.serve import SCHEMA
from edgekd.profile.transports import _problems as problems
from edgekd.profile.transports._answers import Failure, plain
from edgekd.profile.transports._stream import (
    EndedError,
    NonsenseError,
    SilentError,
    Stream,
    strict_json,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from edgekd.core.errors import DeviceError

T = TypeVar("T")
_AGENT = "edgekd.profile.agent"
_JSON_BYTES = 1 << 20
_GRACE_S = 15.0
_CACHE_BYTES = 1 << 30
_IDLE_S = 1800.0


class Link(Protocol):
    """What a transport knows that the others don't."""

    @property
    def timeout_s(self) -> float:
        """Silence that is taken for a hang."""

    @property
    def wait_s(self) -> float:
        """For another measurement there to end."""

    @property
    def folder(self) -> str | None:
        """Where models are kept there."""

    @property
    def place(self) -> str:
        """The device, in an error."""

    def command(self) -> list[str]:
        """The program that starts Python with the agent's `BOOT` there, as an argument list."""

    def explain(self, ended: EndedError) -> DeviceError:
        """Why there was no connection."""


class File(NamedTuple):
    """A file that the device needs: its name beside the model, its hash, and where it is."""

    name: str
    sha256: str
    source: Path | bytes


class Parts(NamedTuple):
    """How an answer is taken that comes in parts, while the work goes on.

    Attributes:
        take: Gets each part and its bytes; raises NonsenseError where it can make nothing of it.
        within_s: For each to come.
        most_bytes: Of each one's arrays.
    """

    take: Callable[[dict[str, Any], bytes], None]
    within_s: float
    most_bytes: int


class Connection:
    """Over a link; nothing is started before the first question.

    Raises:
        DeviceError: From every question: no connection, no answer, or none to believe.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._stream: Stream | None = None

    def close(self) -> None:
        """End it; the agent cleans up. The next question would start another."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def work(
        self,
        request: dict[str, Any],
        body: bytes,
        files: Mapping[str, File],
        *,
        limit_s: float,
        most_bytes: int,
        read: Callable[[dict[str, Any], bytes], T],
        parts: Parts | None = None,
    ) -> T:
        """Have one request done.

        Args:
            request: What to do.
            body: Of its arrays.
            files: That it needs, by their hashes; only those that are not there yet are sent.
            limit_s: For the work there.
            most_bytes: That the answer's arrays may have.
            read: Makes something of the answer; raises NonsenseError where it cannot.
            parts: That come before it. Work of which a part has come is not begun once more.
        """
        message = {"kind": "work", "limit_s": limit_s, "request": request, "bytes": len(body)}

        def ask(stream: Stream) -> T:
            self._put(stream, files)
            self._send(stream, message, body)
            if parts is None:
                reply = self._reply(stream, "answer", within_s=limit_s + _GRACE_S)
                return read(*self._body(stream, reply, most_bytes))
            return read(*self._after_parts(stream, parts, most_bytes))

        return self._asked(ask)

    def _after_parts(
        self, stream: Stream, parts: Parts, most_bytes: int
    ) -> tuple[dict[str, Any], bytes]:
        """The answer that follows the last part."""
        came = False
        try:
            while True:
                reply = self._reply(stream, "answer", "part", within_s=parts.within_s)
                if reply["kind"] == "answer":
                    return self._body(stream, reply, most_bytes)
                came = True
                parts.take(*self._body(stream, reply, parts.most_bytes))
        except EndedError as e:
            if not came:
                raise
            self.close()
            raise problems.broke(self._link.place, e) from e

    def _body(
        self, stream: Stream, reply: dict[str, Any], most_bytes: int
    ) -> tuple[dict[str, Any], bytes]:
        """The JSON text and the bytes that a reply announces."""
        sizes = [_size(reply.get(key)) for key in ("json", "bytes")]
        if sizes[0] > _JSON_BYTES or sizes[1] > most_bytes:
            raise NonsenseError(f"{sum(sizes)} bytes, more than the question can give")
        text, data = (stream.payload(s, silence_s=self._link.timeout_s) for s in sizes)
        answer = strict_json(text)
        if "error" in answer:
            raise self._failed(answer["error"])
        return answer, data

    def _put(self, stream: Stream, files: Mapping[str, File]) -> None:
        if not files:
            return
        self._send(stream, {"kind": "have", "files": list(files)})
        missing = self._reply(stream, "missing", within_s=self._link.timeout_s).get("files")
        if not isinstance(missing, list) or not set(map(str, missing)) <= files.keys():
            raise NonsenseError("files that nobody asked for")
        for sha256 in map(str, missing):
            source = files[sha256].source
            data = source if isinstance(source, bytes) else source.read_bytes()
            self._send(stream, {"kind": "put", "sha256": sha256, "bytes": len(data)}, data)
            self._reply(stream, "done", within_s=self._link.timeout_s)

    def _asked(self, ask: Callable[[Stream], T]) -> T:
        """Ask; when the connection breaks meanwhile, all of it is asked once more."""
        place = self._link.place
        broke = False
        while True:
            try:
                if self._stream is None:
                    self._stream = self._started()
                return ask(self._stream)
            except EndedError as e:
                self.close()
                if broke:
                    raise problems.lost(place, e) from e
                broke = True
            except SilentError as e:
                self.close()
                raise problems.silent(place) from e
            except NonsenseError as e:
                self.close()
                raise problems.nonsense(place, str(e)) from e

    def _started(self) -> Stream:
        command = self._link.command()
        try:
            stream = Stream(command)
        except OSError as e:
            raise problems.no_program(command[0], e) from e
        bundle = {
            "sources": {
                file.name: file.read_text()
                for file in resources.files(_AGENT).iterdir()
                if file.name.endswith(".py")
            },
            "folder": self._link.folder,
            "wait_s": self._link.wait_s,
            "idle_s": _IDLE_S,
            "cache_bytes": _CACHE_BYTES,
        }
        text = json.dumps(bundle).encode()
        try:
            stream.send(b"%d\n" % len(text) + text, silence_s=self._link.timeout_s)
            hello = stream.receive(within_s=self._link.timeout_s + self._link.wait_s, noise=True)
            self._expect(hello, "hello")
            if hello.get("schema") != SCHEMA:
                raise NonsenseError("another schema")
        except EndedError as e:
            stream.close()
            raise self._link.explain(e) from e
        except BaseException:
            stream.close()
            raise
        return stream

    def _send(self, stream: Stream, message: dict[str, Any], body: bytes = b"") -> None:
        line = json.dumps(message).encode() + b"\n"
        stream.send(line + body, silence_s=self._link.timeout_s)

    def _reply(self, stream: Stream, *kinds: str, within_s: float) -> dict[str, Any]:
        reply = stream.receive(within_s=within_s)
        self._expect(reply, *kinds)
        return reply

    def _expect(self, reply: dict[str, Any], *kinds: str) -> None:
        if reply["kind"] == "error":
            raise self._failed({key: reply[key] for key in reply if key != "kind"})
        if reply["kind"] not in kinds:
            raise NonsenseError(f"another message than {kinds[0]!r}")

    def _failed(self, error: Any) -> Exception:
        failure = plain(Failure, error)
        return problems.failed(self._link.place, failure.code, failure.text)


def _size(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise NonsenseError("a size that is none")
    return value
