"""What can go wrong with a device, in words; nothing of it is taken from the device unchecked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekd.core.errors import DeviceError, EdgekdError, MissingDependencyError, UnsupportedError

if TYPE_CHECKING:
    from edgekd.profile.transports._stream import EndedError

_LONGEST = 300


def one_line(text: str) -> str:
    """A device's words: no control character of theirs reaches the terminal, nor a long story."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"


def last_line(text: str) -> str:
    """The last line that says something."""
    lines = [line for line in text.splitlines() if line.strip()]
    return one_line(lines[-1]) if lines else ""


def missing(place: str, package: str) -> DeviceError:
    """Something that the agent needs is not installed there."""
    return DeviceError(
        f"{place} lacks {one_line(package)}.",
        expected="the target's runtime and numpy, for the Python that the transport starts",
        todo="install it there, or name another Python as `python` in the target's transport",
    )


class DisbelievedError(DeviceError):
    """A device says what it cannot have measured, so that nothing else of it is believed."""


def silent(place: str) -> DeviceError:
    """Nothing came for longer than is allowed."""
    return DeviceError(
        f"{place} does not answer any more.",
        expected="an answer within the target's timeout_s",
        todo="check the device; raise `timeout_s` in the target's transport if it is just slow",
    )


def lost(place: str, ended: EndedError) -> DeviceError:
    """The connection broke, twice."""
    return DeviceError(
        f"The connection to {place} broke, and broke again when it was made once more.",
        got=one_line(ended.complaint) or f"exit code {ended.code}",
        todo="check the network and the device's power; nothing half-done is kept",
    )


def broke(place: str, ended: EndedError) -> DeviceError:
    """The connection broke in work that is not begun once more."""
    return DeviceError(
        f"The connection to {place} broke.",
        got=one_line(ended.complaint) or f"exit code {ended.code}",
        todo="check the network and the device's power, and call the same command again",
    )


def nonsense(place: str, text: str) -> DisbelievedError:
    """The answer is none that the agent would give."""
    return DisbelievedError(
        f"{place} gives an answer that edgekd does not believe; nothing of it is kept.",
        expected="what edgekd's agent sends",
        got=one_line(text),
        todo="check what that device is, and which Python its target names",
    )


def no_program(name: str, error: OSError) -> MissingDependencyError:
    """The program that leads to the device is not installed here."""
    return MissingDependencyError(
        f"The program {name!r} cannot be started here.",
        got=str(error.strerror),
        todo=f"install {name}, with `apt install` for example",
    )


def failed(place: str, code: str, text: str) -> EdgekdError:
    """What the agent says about a request that it could not do."""
    said = one_line(text)
    if code == "missing":
        return missing(place, said)
    if code in ("refused", "unsupported"):
        return UnsupportedError(
            f"The runtime on {place} cannot load the model.",
            got=said,
            todo="try another target, or another version of the runtime there",
        )
    first, todo = _FAILURES.get(code, _FAILURES["failed"])
    return DeviceError(first.format(place=place), got=said, todo=todo)


_FAILURES = {
    "busy": (
        "{place} is in use: something else is measured there.",
        "wait until that has ended, or raise `wait_s` in the target's transport",
    ),
    "no_space": (
        "{place} has no space left for the model.",
        "free some, or name a `folder` on another disk in the target's transport",
    ),
    "no_memory": ("{place} ran out of memory.", "use a smaller model or batch"),
    "corrupt": (
        "The model arrived at {place} damaged, or was changed there; it was not run.",
        "call the same command again; if it stays so, check the device's disk and memory",
    ),
    "died": (
        "The process that ran the model on {place} died.",
        "if it was killed, the model needs more memory than there is",
    ),
    "slow": (
        "{place} took too long.",
        "use a smaller model, or raise `timeout_s` in the target's transport",
    ),
    "folder": (
        "The agent cannot work in its folder on {place}.",
        "name another `folder` in the target's transport",
    ),
    "failed": ("The model fails on {place}.", "run it there by hand, and check its inputs"),
}
