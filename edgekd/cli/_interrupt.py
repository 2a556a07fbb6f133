"""Ctrl-C that is neither lost nor taken for another error.

Python drops an exception that is raised inside a destructor, and libraries that import parts of
theirs in compiled code turn one into an ImportError of their own. A run that goes on after Ctrl-C
looks hung to its user, and "install it again" is no answer to it.
"""

from __future__ import annotations

import signal
import sys
import threading
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import FrameType

_AGAIN_S = 0.05


class Interrupts:
    """Inside, every Ctrl-C arrives.

    Attributes:
        came: Whether one has; what is raised afterwards is then its doing.
    """

    def __init__(self) -> None:
        self.came = False

    def __enter__(self) -> Self:
        self._hook_before = sys.unraisablehook
        sys.unraisablehook = self._unraisable
        # another handler is somebody else's, who knows what they want
        self._mine = (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        )
        if self._mine:
            signal.signal(signal.SIGINT, self._came)
        return self

    def __exit__(self, *exc: object) -> None:
        sys.unraisablehook = self._hook_before
        if self._mine:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _came(self, number: int, frame: FrameType | None) -> None:
        self.came = True
        signal.default_int_handler(number, frame)

    def _unraisable(self, dropped: sys.UnraisableHookArgs, /) -> None:
        if not issubclass(dropped.exc_type, KeyboardInterrupt):
            self._hook_before(dropped)
            return
        # a little later, when the destructor is left; if that meets another one, once more. To
        # the main thread as a real signal: it may be waiting in a system call.
        main = threading.main_thread().ident
        timer = threading.Timer(_AGAIN_S, signal.pthread_kill, (main, signal.SIGINT))
        timer.daemon = True
        timer.start()
