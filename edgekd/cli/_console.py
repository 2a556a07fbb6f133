"""Results go to stdout, everything else to stderr; progress bars that never disturb a timing."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console
    from rich.progress import Progress, TaskID

_PIPE_COLUMNS = 120
_PLAIN_EVERY_S = 10.0
_REDRAW_EVERY_S = 0.1


def stdout() -> Console:
    """For results. Into a pipe or file it writes plain text, 120 columns wide."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else _PIPE_COLUMNS
    return Console(highlight=False, width=width)


def stderr() -> Console:
    """For progress and messages."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


class RichProgress:
    """Progress on stderr: bars on a terminal, a few plain lines elsewhere.

    It has no thread of its own: a bar is drawn when it advances. A thread that redraws would take
    the interpreter's lock in the middle of an inference that is being timed.

    Args:
        console: Where to draw; stderr by default.
        clock_s: Monotonic seconds.
    """

    def __init__(
        self, console: Console | None = None, clock_s: Callable[[], float] = time.perf_counter
    ) -> None:
        self._console = console or stderr()
        self._clock_s = clock_s
        self._live: Progress | None = None
        self._open_bars = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop()

    @contextmanager
    def bar(self, title: str, total: int, done: int = 0) -> Iterator[_Bar]:
        """A bar of `total` steps, `done` of them already; leaves one line when it ends."""
        live = self._start() if self._console.is_terminal else None
        bar = _Bar(self, live, _one_line(title), total, done)
        self._open_bars += 1
        try:
            yield bar
            bar.close("done")
        except BaseException:
            bar.close("stopped")
            raise
        finally:
            self._open_bars -= 1
            if self._open_bars == 0:
                self._stop()

    def say(self, message: str) -> None:
        """One line, above the bars."""
        self._console.print(_one_line(message), markup=False, soft_wrap=True)

    def now_s(self) -> float:
        """Monotonic seconds."""
        return self._clock_s()

    def _start(self) -> Progress:
        if self._live is None:
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeElapsedColumn,
                TimeRemainingColumn,
            )

            self._live = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}", markup=False),
                console=self._console,
                auto_refresh=False,
                get_time=self._clock_s,
                transient=True,  # a finished bar leaves its line instead
            )
            self._live.start()
        return self._live

    def _stop(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


class _Bar:
    """One open bar; `live` is None where there is no terminal."""

    def __init__(
        self, owner: RichProgress, live: Progress | None, title: str, total: int, done: int
    ) -> None:
        self._owner, self._live, self._title, self._total = owner, live, title, total
        self._first, self._done, self._note = done, done, ""
        self._start_s = self._shown_s = owner.now_s()
        self._task: TaskID | None = None
        if live is not None:
            self._task = live.add_task(title, total=total, completed=done, note="")
            live.refresh()
        else:
            owner.say(f"{title}: {done}/{total}")

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Say that `steps` more are done; `note` is a few words such as a loss."""
        self._done += steps
        self._note = _one_line(note)
        now_s = self._owner.now_s()
        if self._live is not None and self._task is not None:
            self._live.update(self._task, completed=self._done, note=self._note)
            if now_s - self._shown_s >= _REDRAW_EVERY_S or self._done >= self._total:
                self._shown_s = now_s
                self._live.refresh()
        elif now_s - self._shown_s >= _PLAIN_EVERY_S and self._done < self._total:
            self._shown_s = now_s
            self._owner.say(self._line(now_s))

    def close(self, end: str) -> None:
        """Leave one line: how many steps in what time, and the last note."""
        if self._live is not None and self._task is not None:
            self._live.remove_task(self._task)
            self._live.refresh()
        took = duration(self._owner.now_s() - self._start_s)
        note = f" ({self._note})" if self._note else ""
        if end == "done":
            self._owner.say(f"{self._title}: done in {took}{note}")
        else:
            self._owner.say(f"{self._title}: stopped at {self._done}/{self._total} after {took}")

    def _line(self, now_s: float) -> str:
        elapsed_s = now_s - self._start_s
        steps = self._done - self._first
        parts = [f"{self._done}/{self._total}", duration(elapsed_s)]
        if steps:
            parts.append(f"about {duration(elapsed_s / steps * (self._total - self._done))} left")
        return f"{self._title}: {', '.join([*parts, *filter(None, [self._note])])}"


def duration(seconds: float) -> str:
    """A time for people: ``0.4 s``, ``12 s``, ``3 min 05 s``, ``1 h 02 min``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _one_line(text: str) -> str:
    """Names come from users' files: no control character of theirs reaches the terminal."""
    return "".join(c if c.isprintable() else " " for c in text)
