"""The agent: answers requests on its standard input until that ends, then leaves nothing behind.

It is started from its source text alone, so it imports the standard library and nothing else. A
message is one line, ``edgekd-agent {…}``, and then as many bytes as the line says. Under its
folder it keeps a lock, so that nothing else is measured meanwhile, and ``models/``, where files
stand under their sha256 and are checked against it before every use. Each connection works in a
random folder beside them, which is removed when the connection ends or breaks.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import platform
import re
import select
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

SCHEMA = "edgekd.agent/1"
MARK = "edgekd-agent "
#: starts the agent: reads the length of a JSON text, the text, and runs the agent inside
BOOT = (
    "import sys,json;b=sys.stdin.buffer;"
    "sys.version_info>=(3,8) or sys.exit('edgekd-agent needs Python 3.8');"
    "d=json.loads(b.read(int(b.readline())));g={'__name__':'edgekd_agent'};"
    "exec(compile(d['sources']['serve.py'],'serve.py','exec'),g);g['main'](d)"
)
_HASH = re.compile("[0-9a-f]{64}")
_CHUNK = 1 << 16
_SPARE_BYTES = 1 << 20  # besides a file itself, for what the file system keeps
_LONGEST = 500


class _GoneError(Exception):
    """Nobody is there any more to answer to."""


class _ProblemError(Exception):
    """Something that the other side has to be told."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code, self.text = code, text


def main(bundle: dict[str, Any]) -> None:
    """Serve one connection.

    Args:
        bundle: ``sources`` (file name -> text of every module here), ``folder`` (None for the
            device's temporary one), ``wait_s`` for the lock, ``idle_s`` without a request, and
            ``cache_bytes`` that models may take.
    """
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(1))
    try:
        _told(partial(_serve, bundle))
    except _GoneError:
        sys.exit(1)


def _serve(bundle: dict[str, Any]) -> None:
    root = _root(bundle["folder"])
    lock = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    _wait_for(lock, bundle["wait_s"])
    for left in root.glob("run-*"):  # of an agent that was killed, or of a power cut
        shutil.rmtree(left, ignore_errors=True)
    models = root / "models"
    models.mkdir(exist_ok=True)
    run = Path(tempfile.mkdtemp(prefix="run-", dir=root))
    try:
        (run / "agent").mkdir()
        for name, text in bundle["sources"].items():
            (run / "agent" / name).write_text(text)
        (run / "main.py").write_text("from agent.worker import main\nmain()\n")
        _send({"kind": "hello", "schema": SCHEMA, "python": platform.python_version()})
        count = 0
        while (asked := _next(bundle["idle_s"])) is not None:
            if asked["kind"] == "have":
                missing = [x for x in asked["files"] if not _has(models, _hash(x))]
                _send({"kind": "missing", "files": missing})
            elif asked["kind"] == "put":
                _told(partial(_put, asked, models, run, bundle["cache_bytes"]))
            elif asked["kind"] == "work":
                count += 1
                folder = run / f"request-{count}"
                _told(partial(_work, asked, models, run, folder))
                shutil.rmtree(folder, ignore_errors=True)
            else:
                raise _ProblemError("protocol", "a request of an unknown kind")
    finally:
        shutil.rmtree(run, ignore_errors=True)


# ---------------------------------------------------------------- requests
def _put(asked: dict[str, Any], models: Path, run: Path, cache_bytes: int) -> None:
    """Take a file into the cache, if its bytes are those that its hash promises."""
    size, wanted, temp = int(asked["bytes"]), _hash(asked["sha256"]), run / "incoming"
    digest = hashlib.sha256()
    problem = None
    try:
        _make_room(models, size, cache_bytes)
        with temp.open("wb") as f:
            for part in _payload(size):
                size -= len(part)
                digest.update(part)
                f.write(part)
    except (_ProblemError, OSError) as e:
        problem = e
        if temp.exists():
            temp.unlink()
        for _ in _payload(size):  # the rest comes all the same
            pass
    if problem is not None:
        raise problem
    if digest.hexdigest() != wanted:
        temp.unlink()
        raise _ProblemError("corrupt", f"bytes of sha256 {digest.hexdigest()[:12]}")
    os.replace(temp, models / wanted)
    _send({"kind": "done"})


def _work(asked: dict[str, Any], models: Path, run: Path, folder: Path) -> None:
    """Run one request in a process of its own, and send what it answers."""
    request = asked["request"]
    folder.mkdir()
    with (folder / "inputs.bin").open("wb") as f:
        f.writelines(_payload(int(asked["bytes"])))
    for index, model in enumerate(request["models"]):
        place = folder / f"model-{index}"
        for name, sha256 in model["files"]:
            if not _has(models, _hash(sha256)):
                raise _ProblemError("corrupt", f"the cached file of {name} is not there any more")
            _link(models / sha256, place / _inside(name))
        model["file"] = str(place / model["files"][0][0])
    (folder / "request.json").write_text(json.dumps(request))
    with (folder / "errors.txt").open("wb") as errors:
        worker = subprocess.Popen(
            [sys.executable, str(run / "main.py"), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
        try:
            _watch(worker, float(asked["limit_s"]), folder)
        finally:
            if worker.poll() is None:
                os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()
    if worker.returncode or not (folder / "answer.json").exists():
        raise _ProblemError("died", _last_words(worker.returncode, folder / "errors.txt"))
    _answer("answer", folder / "answer.json", folder / "outputs.bin")


def _answer(kind: str, head: Path, body: Path) -> None:
    text = head.read_bytes()
    _send({"kind": kind, "json": len(text), "bytes": body.stat().st_size})
    _write(text)
    with body.open("rb") as f:
        for part in iter(lambda: f.read(_CHUNK), b""):
            _write(part)


def _watch(worker: subprocess.Popen[bytes], limit_s: float, folder: Path) -> None:
    """Sleep until the worker ends; nothing is polled, since it may be timing something.

    What it writes to its standard output, whatever it is, means that there may be new parts.
    """
    end_s = time.monotonic() + limit_s
    sent = 0
    assert worker.stdout is not None
    out = worker.stdout.fileno()
    while True:
        left_s = end_s - time.monotonic()
        ready = select.select([0, out], [], [], max(left_s, 0.0))[0]
        if 0 in ready:  # the other side sends nothing meanwhile, so this is its end
            raise _GoneError
        if not ready:
            raise _ProblemError("slow", f"no answer after {limit_s:.0f} s")
        ended = not os.read(out, _CHUNK)
        while (head := folder / f"part-{sent}.json").exists():
            body = head.with_suffix(".bin")
            _answer("part", head, body)
            head.unlink()
            body.unlink()
            sent += 1
        if ended:
            try:
                worker.wait(max(left_s, 1.0))
            except subprocess.TimeoutExpired as e:
                raise _ProblemError("slow", f"no end after {limit_s:.0f} s") from e
            return


def _last_words(code: int, errors: Path) -> str:
    if code < 0:
        return f"killed by signal {-code}"
    lines = errors.read_bytes()[-_CHUNK:].decode(errors="replace").split("\n")
    return next((x for x in reversed(lines) if x.strip()), f"exit code {code}")[:_LONGEST]


# ---------------------------------------------------------------- the folder on the device
def _root(folder: str | None) -> Path:
    """The agent's folder, which nobody else may write to."""
    root = Path(folder or tempfile.gettempdir()) / f"edgekd-{os.getuid()}"
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    facts = root.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid() or facts.st_mode & 0o022:
        raise _ProblemError("folder", f"{root} may be written to by others")
    return root


def _wait_for(lock: int, wait_s: float) -> None:
    end_s = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError as e:
            if time.monotonic() >= end_s:
                owner = os.pread(lock, 16, 0).decode(errors="replace").strip()
                raise _ProblemError("busy", f"process {owner}") from e
        if select.select([0], [], [], 0.2)[0]:
            raise _GoneError
    os.ftruncate(lock, 0)
    os.pwrite(lock, str(os.getpid()).encode(), 0)


def _has(models: Path, sha256: str) -> bool:
    """Whether a file is in the cache, unharmed; a harmed one is removed."""
    path = models / sha256
    digest = hashlib.sha256()
    try:
        with path.open("rb") as f:
            for part in iter(lambda: f.read(_CHUNK), b""):
                digest.update(part)
    except FileNotFoundError:
        return False
    if digest.hexdigest() != sha256:
        path.unlink()
        return False
    os.utime(path)  # what is used stays longest
    return True


def _make_room(models: Path, size: int, cache_bytes: int) -> None:
    """Remove the files that were not used for longest, until one of `size` bytes fits."""
    files = sorted(models.iterdir(), key=lambda p: p.stat().st_mtime)
    total = sum(p.stat().st_size for p in files)
    for path in files:
        free = shutil.disk_usage(models).free
        if total + size <= cache_bytes and free >= size + _SPARE_BYTES:
            return
        total -= path.stat().st_size
        path.unlink()
    free = shutil.disk_usage(models).free
    if free < size + _SPARE_BYTES:
        raise _ProblemError("no_space", f"{free} bytes free, {size + _SPARE_BYTES} needed")


def _link(source: Path, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, path)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, path)


def _inside(name: str) -> str:
    parts = PurePosixPath(name).parts
    if not parts or PurePosixPath(name).is_absolute() or ".." in parts:
        raise _ProblemError("protocol", "a file name that leaves its folder")
    return name


def _hash(text: Any) -> str:
    if not isinstance(text, str) or not _HASH.fullmatch(text):
        raise _ProblemError("protocol", "no sha256")
    return text


# ---------------------------------------------------------------- messages
def _told(work: Any) -> None:
    """Do something; what goes wrong is sent to the other side in one message."""
    try:
        work()
    except _ProblemError as e:
        _send({"kind": "error", "code": e.code, "text": e.text})
    except OSError as e:
        full = e.errno in (errno.ENOSPC, errno.EDQUOT)
        _send({"kind": "error", "code": "no_space" if full else "folder", "text": str(e)})


def _next(idle_s: float) -> dict[str, Any] | None:
    """The next request; None when the other side has ended the connection, or sleeps."""
    if not select.select([0], [], [], idle_s)[0]:
        return None
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            return None
        line += byte
    asked: dict[str, Any] = json.loads(line)
    return asked


def _payload(size: int) -> Any:
    while size:
        part = os.read(0, min(size, _CHUNK))
        if not part:
            raise _GoneError
        size -= len(part)
        yield part


def _send(message: dict[str, Any]) -> None:
    _write((MARK + json.dumps(message) + "\n").encode())


def _write(data: bytes) -> None:
    try:
        while data:
            data = data[os.write(1, data) :]
    except OSError as e:
        raise _GoneError from e
