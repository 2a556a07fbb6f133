"""Another Python environment on this machine, with other versions of the runtimes in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from edgekd.core.config import Config
from edgekd.core.errors import DeviceError
from edgekd.profile.agent.serve import BOOT
from edgekd.profile.transports._contract import TRANSPORTS
from edgekd.profile.transports._problems import last_line
from edgekd.profile.transports._remote import RemoteDevice

if TYPE_CHECKING:
    from edgekd.profile.transports._stream import EndedError


@TRANSPORTS.register
class Interpreter(Config):
    """Starts edgekd's agent under another interpreter; edgekd need not be installed there.

    Attributes:
        python: The interpreter, e.g. /opt/old/bin/python; it has numpy and the runtime.
        folder: Where models are kept; null for the temporary folder.
        timeout_s: Silence that is taken for a hang, beyond the time that a measurement takes.
        wait_s: For another measurement under the same folder to end.
    """

    python: str
    folder: str | None = None
    timeout_s: Annotated[float, Field(gt=0, le=86400)] = 300.0
    wait_s: Annotated[float, Field(ge=0, le=86400)] = 60.0

    @property
    def place(self) -> str:
        """The interpreter's path."""
        return self.python

    def connect(self) -> RemoteDevice:
        """See the contract."""
        return RemoteDevice(self, "interpreter")

    def command(self) -> list[str]:
        """The interpreter without the caller's PYTHONPATH: the environment shall be its own."""
        return [self.python, "-E", "-c", BOOT]

    def explain(self, ended: EndedError) -> DeviceError:
        """What the interpreter said before it ended."""
        return DeviceError(
            f"{self.python} cannot start edgekd's agent.",
            expected="Python 3.8 or newer with numpy",
            got=last_line(ended.complaint) or f"exit code {ended.code}",
            todo="install the packages that it names into that environment",
        )
