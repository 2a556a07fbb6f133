"""An Android device over adb, with a Python such as Termux's on it."""

from __future__ import annotations

import shlex
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

_Serial = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:\[\]-]{0,127}$")]
_NOT_FOUND = 127


@TRANSPORTS.register
class Adb(Config):
    """Starts edgekd's agent in `adb shell`; the device needs a Python with numpy and the runtime.

    Attributes:
        serial: As `adb devices` shows it; null where only one device is attached.
        python: Interpreter there, e.g. /data/data/com.termux/files/usr/bin/python3.
        folder: Where models are kept there; it must allow files to be run by that Python.
        timeout_s: Silence that is taken for a hang, beyond the time that a measurement takes.
        wait_s: For another measurement there to end.
    """

    serial: _Serial | None = None
    python: str = "python3"
    folder: str | None = "/data/local/tmp"
    timeout_s: Annotated[float, Field(gt=0, le=86400)] = 300.0
    wait_s: Annotated[float, Field(ge=0, le=86400)] = 60.0

    @property
    def place(self) -> str:
        """The device as adb calls it."""
        return self.serial or "the adb device"

    def connect(self) -> RemoteDevice:
        """See the contract."""
        return RemoteDevice(self, "adb")

    def command(self) -> list[str]:
        """The adb command line: no terminal there, so that bytes pass as they are."""
        device = ["-s", self.serial] if self.serial is not None else []
        return ["adb", *device, "shell", "-T", shlex.join([self.python, "-c", BOOT])]

    def explain(self, ended: EndedError) -> DeviceError:
        """What adb, or the shell there, said before it ended."""
        said = last_line(ended.complaint)
        for words, failed, todo in _COMPLAINTS:
            if words in ended.complaint:
                return DeviceError(failed.format(place=self.place), got=said, todo=todo)
        absent = ended.code == _NOT_FOUND
        what = f"has no {self.python!r}" if absent else "cannot start edgekd's agent"
        return DeviceError(
            f"{self.place} {what}.",
            expected="Python 3.8 or newer",
            got=said or f"exit code {ended.code}",
            todo="install one there (Termux has one), and name it as `python` in the target",
        )


#: what adb says -> what failed, and what to do
_COMPLAINTS = (
    (
        "no devices/emulators found",
        "adb sees no device.",
        "attach it, switch on USB debugging, and look at `adb devices`",
    ),
    (
        "more than one device",
        "adb sees several devices.",
        "name one of `adb devices` as `serial` in the target's transport",
    ),
    (
        "unauthorized",
        "{place} has not allowed this computer yet.",
        "unlock it and accept the question on its screen",
    ),
    (
        "offline",
        "{place} is attached, but does not answer adb.",
        "unplug it and plug it in again",
    ),
    (
        "not found",
        "adb sees no device {place}.",
        "compare `serial` in the target's transport with `adb devices`",
    ),
)
