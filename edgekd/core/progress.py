"""How long work tells how far it is; the CLI draws it, everyone else stays silent."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator


class Bar(Protocol):
    """One piece of work with a known number of steps."""

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Say that `steps` more are done; `note` is a few words such as a loss."""


class Progress(Protocol):
    """Opens bars and prints one-line messages."""

    @contextmanager
    def bar(self, title: str, total: int, done: int = 0) -> Iterator[Bar]:
        """A bar of `total` steps of which `done` are done already (a resumed run)."""
        ...

    def say(self, message: str) -> None:
        """One line for the user."""


class _SilentBar:
    def advance(self, steps: int = 1, note: str = "") -> None:
        """Say nothing."""


class Silent:
    """The default: no output."""

    @contextmanager
    def bar(self, title: str, total: int, done: int = 0) -> Iterator[Bar]:
        """Yield a bar that draws nothing."""
        yield _SilentBar()

    def say(self, message: str) -> None:
        """Say nothing."""
