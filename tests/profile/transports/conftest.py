"""Devices for tests: the agent behind a pipe, and a real sshd on this machine."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
import pytest

from edgekd.backends._onnx.specs import input_specs
from edgekd.core.config import dump_yaml
from edgekd.core.errors import DeviceError
from edgekd.core.hashing import sha256_file
from edgekd.core.target import Target, load_target
from edgekd.profile.agent.serve import BOOT, SCHEMA
from edgekd.profile.inputs import make_feeds
from edgekd.profile.transports._contract import Load
from edgekd.profile.transports._remote import RemoteDevice
from edgekd.profile.transports._stream import EndedError
from edgekd.testing.onnx_models import convolution_net

_START_S = 10
HELLO = f'edgekd-agent {{"kind": "hello", "schema": "{SCHEMA}", "python": "3.11"}}\n'
#: takes the agent's sources, says what it is told to, then answers like an agent with one answer
LIAR = """
import json, sys
b, out = sys.stdin.buffer, sys.stdout.buffer
b.read(int(b.readline()))
def say(x):
    out.write(x); out.flush()
say(open(sys.argv[1], "rb").read())
while line := b.readline():
    asked = json.loads(line)
    if asked["kind"] == "have":
        say(b'edgekd-agent {"kind": "missing", "files": []}\\n')
    else:
        b.read(asked["bytes"])
        say(open(sys.argv[2], "rb").read())
"""
Liar = Callable[..., Any]


@dataclass(frozen=True)
class Pipe:
    """A link to the agent in a process of this machine, without a network between."""

    folder: str | None
    words: tuple[str, ...] = (sys.executable, "-c", BOOT)
    timeout_s: float = 20.0
    wait_s: float = 0.0
    place: str = "the pipe"

    def command(self) -> list[str]:
        return list(self.words)

    def explain(self, ended: EndedError) -> DeviceError:
        return DeviceError("The pipe did not start.", got=ended.complaint)


@dataclass
class Server:
    """A running sshd of its own keys, and what a target needs to reach it."""

    port: int
    keys: Path
    process: subprocess.Popen[bytes]
    user: str = field(default_factory=getpass.getuser)

    def transport(self, folder: Path, **changes: Any) -> dict[str, Any]:
        """Of a target; its models are kept in `folder`."""
        return {
            "name": "ssh",
            "host": "127.0.0.1",
            "port": self.port,
            "user": self.user,
            "identity": str(self.keys / "user"),
            "known_hosts": str(self.keys / "known_hosts"),
            "python": sys.executable,
            "folder": str(folder),
            "timeout_s": 30.0,
            **changes,
        }

    def connections(self) -> list[int]:
        """Processes that serve a connection: sshd's children."""
        found = []
        for entry in Path("/proc").glob("[0-9]*/stat"):
            try:
                after_name = entry.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(after_name[1]) == self.process.pid:
                found.append(int(entry.parent.name))
        return found


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """sshd on a free port of the loopback."""
    program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if program is None or shutil.which("ssh") is None:
        pytest.skip("sshd and ssh are not installed: apt install openssh-server")
    keys = tmp_path_factory.mktemp("keys")
    for name in ("host", "user", "stranger"):
        new = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(keys / name)]
        subprocess.run(new, check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    host_key = (keys / "host.pub").read_text()
    (keys / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}")
    (keys / "authorized_keys").write_text((keys / "user.pub").read_text())
    (keys / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {keys}/host\nPidFile none\n"
        f"AuthorizedKeysFile {keys}/authorized_keys\nUsePAM no\nStrictModes no\n"
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\n"
        "PermitRootLogin prohibit-password\n"
        "SetEnv SHLVL=2\n"  # so that bash spares what a user's own .bashrc may take seconds for
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where it locks itself up
    log = (keys / "log").open("wb")
    process = subprocess.Popen([program, "-D", "-e", "-f", keys / "sshd_config"], stderr=log)
    server = Server(port, keys, process)
    end_s = time.monotonic() + _START_S
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        if process.poll() is not None or time.monotonic() > end_s:
            pytest.skip(f"sshd does not start here: {(keys / 'log').read_text().strip()}")
        time.sleep(0.05)
    yield server
    process.terminate()
    process.wait()
    log.close()


@pytest.fixture
def device(tmp_path: Path) -> Path:
    """A folder of the device, empty."""
    folder = tmp_path / "device"
    folder.mkdir()
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "net.onnx"
    path.write_bytes(convolution_net(quantized=True))
    return path


@pytest.fixture
def write_target(tmp_path: Path) -> Callable[..., str]:
    """Write ``pi.yaml``, the int8 target of ONNX Runtime reached by the given transport."""

    def write(transport: dict[str, Any], *, based_on: str = "x86-onnxruntime-int8") -> str:
        plain = load_target(based_on).model_dump(mode="json", exclude_none=True)
        path = tmp_path / "pi.yaml"
        path.write_text(dump_yaml({**plain, "name": "pi", "transport": transport}))
        return str(path)

    return write


def load_on(path: Path, target: Target, count: int = 3) -> Load:
    feeds = make_feeds(
        input_specs(onnx.load(path, load_external_data=False), path), {}, seed=0, count=count
    )
    return Load(path.name, path, sha256_file(path), target, feeds)


def cut_while_working(sshd: Server, device: Path, times: int) -> threading.Thread:
    """Kill the processes that serve connections, as soon as each works."""

    def cut() -> None:
        before: set[Path] = set()
        for _ in range(times):
            while not (fresh := set(device.glob("*/run-*/request-*/model-*")) - before):
                time.sleep(0.01)
            before |= fresh
            time.sleep(0.2)
            for pid in sshd.connections():
                os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=cut, daemon=True)
    thread.start()
    return thread


def is_clean(folder: Path) -> bool:
    """Whether nothing but the lock and models, under their hashes, is left on the device."""
    if not list(folder.iterdir()):
        return True
    (root,) = folder.iterdir()
    names = {p.name for p in root.iterdir()}
    models = list((root / "models").iterdir())
    return names == {"lock", "models"} and all(sha256_file(p) == p.name for p in models)


def becomes_clean(folder: Path, within_s: float = 5.0) -> bool:
    """The same, a moment later: an agent that was cut off cleans up on its own."""
    end_s = time.monotonic() + within_s
    while time.monotonic() < end_s:
        if is_clean(folder):
            return True
        time.sleep(0.05)
    return is_clean(folder)


@pytest.fixture
def liar(tmp_path: Path) -> Liar:
    """A device that says `hello`, and `answer` to every question."""

    def make(answer: bytes = b"", hello: bytes = HELLO.encode(), timeout_s: float = 20.0) -> Any:
        (tmp_path / "hello").write_bytes(hello)
        (tmp_path / "answer").write_bytes(answer)
        words = (sys.executable, "-c", LIAR, str(tmp_path / "hello"), str(tmp_path / "answer"))
        return RemoteDevice(Pipe(None, words, timeout_s=timeout_s), "pipe")

    return make


def framed(answer: bytes, body: bytes = b"", **head: Any) -> bytes:
    head = {"kind": "answer", "json": len(answer), "bytes": len(body), **head}
    return f"edgekd-agent {json.dumps(head)}\n".encode() + answer + body
