"""Ctrl-C that arrives inside a destructor, where Python drops every exception, is sent again."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_AGAIN_S = 0.05


@contextmanager
def lasting_interrupts() -> Iterator[None]:
    """Inside, a Ctrl-C is never lost: a run that goes on after one looks hung to its user."""
    before = sys.unraisablehook

    def hook(dropped: sys.UnraisableHookArgs, /) -> None:
        if not issubclass(dropped.exc_type, KeyboardInterrupt):
            before(dropped)
            return
        import signal
        import threading

        # a little later, when the destructor is left; if that meets another one, once more. To
        # the main thread as a real signal: it may be waiting in a system call.
        main = threading.main_thread().ident
        timer = threading.Timer(_AGAIN_S, signal.pthread_kill, (main, signal.SIGINT))
        timer.daemon = True
        timer.start()

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before
