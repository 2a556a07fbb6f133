"""A device behind SSH, by the system's own ssh with keys and the user's agent."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, StringConstraints

from edgekd.core.config import Config
from edgekd.core.errors import DeviceError
from edgekd.profile.agent.serve import BOOT
from edgekd.profile.transports._contract import TRANSPORTS
from edgekd.profile.transports._problems import last_line
from edgekd.profile.transports._remote import RemoteDevice

if TYPE_CHECKING:
    from edgekd.profile.transports._stream import EndedError

_Host = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:%-]*$", max_length=255)
]
_User = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.@-]*$", max_length=64)]
#: seconds between questions whether the other end still lives, and how many may go unanswered
_ALIVE_S, _ALIVE_COUNT = 10, 3
_NOT_FOUND = 127
_CONNECTION = 255


@TRANSPORTS.register
class Ssh(Config):
    """Starts edgekd's agent over ssh; nothing has to be installed there but Python and a runtime.

    Hosts, jumps and keys of your own ssh configuration are used. No password is ever asked for,
    and a host whose key is not in known_hosts is refused.

    Attributes:
        host: Name, address, or a Host of your ssh configuration.
        user: Null for what ssh's configuration says.
        port: Null for what ssh's configuration says.
        identity: Private key; null for ssh's own and the agent's.
        known_hosts: File of host keys; null for ssh's own.
        python: Interpreter there that has numpy and the runtime.
        folder: Where models are kept there; null for the device's temporary folder.
        connect_timeout_s: For making the connection.
        timeout_s: Silence that is taken for a hang, beyond the time that a measurement takes.
        wait_s: For another measurement there to end.
    """

    host: _Host
    user: _User | None = None
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    identity: str | None = None
    known_hosts: str | None = None
    python: str = "python3"
    folder: str | None = None
    connect_timeout_s: Annotated[int, Field(ge=1, le=600)] = 10
    timeout_s: Annotated[float, Field(gt=0, le=86400)] = 300.0
    wait_s: Annotated[float, Field(ge=0, le=86400)] = 60.0

    @property
    def place(self) -> str:
        """``pi@192.168.1.7``."""
        return f"{self.user}@{self.host}" if self.user else self.host

    def connect(self) -> RemoteDevice:
        """See the contract."""
        return RemoteDevice(self, "ssh")

    def command(self) -> list[str]:
        """The ssh command line; the words for the device's shell are quoted one by one."""
        options = {
            "BatchMode": "yes",
            "StrictHostKeyChecking": "yes",
            "PreferredAuthentications": "publickey",
            "GSSAPIAuthentication": "no",  # it would ask name servers first, for seconds
            "ForwardAgent": "no",
            "ForwardX11": "no",
            "ClearAllForwardings": "yes",
            "PermitLocalCommand": "no",
            "ControlPath": "none",
            "ConnectTimeout": str(self.connect_timeout_s),
            "ServerAliveInterval": str(_ALIVE_S),
            "ServerAliveCountMax": str(_ALIVE_COUNT),
            "LogLevel": "ERROR",
        }
        if self.known_hosts is not None:
            options["UserKnownHostsFile"] = _quoted(self.known_hosts)
            options["GlobalKnownHostsFile"] = "none"
        words = ["ssh", "-T"]
        for key, value in options.items():
            words += ["-o", f"{key}={value}"]
        if self.identity is not None:
            words += ["-i", _expanded(self.identity), "-o", "IdentitiesOnly=yes"]
        if self.port is not None:
            words += ["-p", str(self.port)]
        if self.user is not None:
            words += ["-l", self.user]
        return [*words, "--", self.host, shlex.join([self.python, "-c", BOOT])]

    def explain(self, ended: EndedError) -> DeviceError:
        """What ssh, or the shell there, said before it ended."""
        said = ended.complaint
        if ended.code not in (_CONNECTION, 0):
            return self._no_agent(ended)
        for words, failed, todo in _COMPLAINTS:
            if words in said:
                return DeviceError(
                    failed.format(place=self.place),
                    got=last_line(said),
                    todo=todo.format(call=self._by_hand()),
                )
        return DeviceError(
            f"There is no connection to {self.place}.",
            got=last_line(said) or f"exit code {ended.code}",
            todo=f"try `{self._by_hand()}`",
        )

    def _no_agent(self, ended: EndedError) -> DeviceError:
        absent = ended.code == _NOT_FOUND
        what = f"has no {self.python!r}" if absent else "cannot start edgekd's agent"
        return DeviceError(
            f"{self.place} {what}.",
            expected="Python 3.8 or newer",
            got=last_line(ended.complaint) or f"exit code {ended.code}",
            todo="install it there, or name its interpreter as `python` in the target's transport",
        )

    def _by_hand(self) -> str:
        port = ["-p", str(self.port)] if self.port is not None else []
        return shlex.join(["ssh", *port, self.place])


#: what ssh says (LogLevel ERROR, always in English) -> what failed, and what to do
_COMPLAINTS = (
    (
        "IDENTIFICATION HAS CHANGED",
        "{place} shows another host key than the one that is known: it is not trusted.",
        "find out why: a new system, or somebody in between; then correct known_hosts",
    ),
    (
        "Host key verification failed",
        "The host key of {place} is not known: it is not trusted.",
        "call `{call}` once by hand, and compare the fingerprint that it shows",
    ),
    (
        "Permission denied",
        "{place} does not let you in with this key.",
        "add your public key to its authorized_keys, or name the right `identity`",
    ),
    (
        "UNPROTECTED PRIVATE KEY",
        "ssh does not use a private key that others can read.",
        "chmod 600 the key",
    ),
    (
        "Could not resolve hostname",
        "There is no host of the name in {place}.",
        "check `host` in the target's transport",
    ),
    (
        "Connection refused",
        "Nothing at {place} answers to ssh.",
        "start sshd there, or check `port` in the target's transport",
    ),
    (
        "timed out",
        "{place} is out of reach.",
        "check that it is on, and on this network",
    ),
)


def _expanded(path: str) -> str:
    return str(Path(path).expanduser())


def _quoted(path: str) -> str:
    """As an option of ssh, which splits at blanks."""
    return '"' + _expanded(path).replace('"', '\\"') + '"'
