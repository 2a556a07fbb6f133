"""A long run on a device elsewhere, put together from the pieces that it sends meanwhile."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from edgekd.profile.agent import endurance
from edgekd.profile.agent.timing import NS_PER_S
from edgekd.profile.sustained import Record, Sustained
from edgekd.profile.transports import _answers as answers
from edgekd.profile.transports._stream import NonsenseError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from edgekd.core.progress import Bar
    from edgekd.profile.transports._contract import Load


class LongRun:
    """What has come so far.

    Args:
        load: That is run.
        duration_s: That it is to last, seconds.
        bar: Advances with every window.
        where: Makes a profile's environment of what the device says.
        inputs: Where the feeds come from, for the conditions.
    """

    def __init__(
        self,
        load: Load,
        duration_s: float,
        bar: Bar,
        *,
        where: Callable[[answers.Environment], dict[str, Any]],
        inputs: str,
    ) -> None:
        self._load, self._duration_s, self._bar = load, duration_s, bar
        self._where, self._inputs = where, inputs
        self._start_s = time.perf_counter()
        self._begun: answers.Begun | None = None
        self._record = Record(duration_s, ())
        self._runs = self._in_window = self._timed_ns = 0

    def take(self, answer: dict[str, Any], body: bytes) -> None:
        """The next part.

        Raises:
            NonsenseError: It is none that the agent would send, or holds more than there was time
                for.
        """
        arrays = answers.arrays_of(answer, body)
        if self._begun is None:
            self._begun = answers.plain(answers.Begun, answer)
            self._record = Record(self._duration_s, self._begun.counters)
            return
        piece: answers.Piece = answers.plain(answers.Piece, answer)
        due = len(self._record.windows)
        if list(arrays) != ["samples"] or piece.window != due or due == endurance.WINDOWS:
            raise NonsenseError("a piece of another window")
        samples = answers.clocked(arrays["samples"])
        self._runs += len(samples)
        self._timed_ns += sum(samples)
        self._in_window += len(samples)
        most_ns = (time.perf_counter() - self._start_s) * NS_PER_S * answers.CLOCKS
        if self._timed_ns > most_ns or self._runs * answers.FASTEST_NS > most_ns:
            raise NonsenseError("more samples than there was time for")
        if not self._in_window or not (samples or piece.reading):
            raise NonsenseError("a piece without samples")
        reading = None
        if piece.reading is not None:
            if len(piece.reading.joules) != len(self._begun.counters):
                raise NonsenseError("joules of other counters")
            reading = piece.reading.model_dump()
        self._record.add(endurance.Piece(piece.window, samples, reading))
        if reading is not None:
            self._in_window = 0
            self._bar.advance(1, f"median {self._record.windows[-1].median_ms:.3f} ms")

    def end(self, _: dict[str, Any], arrays: Mapping[str, NDArray[np.generic]]) -> Sustained:
        """The whole run.

        Raises:
            NonsenseError: Windows of it are missing, or there was no time for all of it.
        """
        found = self.so_far()
        elapsed_s = time.perf_counter() - self._start_s
        if arrays or found is None or len(self._record.windows) < endurance.WINDOWS:
            raise NonsenseError(f"{len(self._record.windows)} windows of {endurance.WINDOWS}")
        if elapsed_s * answers.CLOCKS < self._duration_s:
            raise NonsenseError("a run shorter than was asked for")
        return found

    def so_far(self) -> Sustained | None:
        """What has come; None where not one sample has."""
        if self._begun is None:
            return None
        where = self._where(self._begun.environment)
        load = self._load
        return self._record.summary(load.sha256, load.target, where, inputs=self._inputs)
