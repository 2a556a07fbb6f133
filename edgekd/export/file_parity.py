"""Two files on the same samples, output by output, also where nobody knows what they mean."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgekd.core.config import nearest
from edgekd.core.errors import DataError, ParityError, RecipeError
from edgekd.numerics.fidelity import Fidelity

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from edgekd.backends._contract import Feeds, Session
    from edgekd.core.progress import Progress
    from edgekd.core.target import Tolerance
    from edgekd.core.types import TensorSpec

    Runner = Callable[[Sequence[Feeds]], Sequence[Mapping[str, NDArray[np.generic]]]]

#: samples that are run before their outputs are compared and dropped
_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class OutputParity:
    """One output of one file against the same output of another.

    Attributes:
        name: Of the output.
        n: Samples compared.
        exact: Both are equal to the bit.
        snr_db: Signal-to-noise ratio in dB; None where both are equal or zero was expected.
        cosine: Of the angle between both.
        max_abs: Largest absolute difference.
        mean_abs_share: Mean absolute difference as a fraction of the output's spread; None where
            a constant was expected and something else came.
        agreement: Fraction of equal decisions along the class axis, or of equal integers; None
            where the output decides nothing.
        decisions: How many there were.
    """

    name: str
    n: int
    exact: bool
    snr_db: float | None
    cosine: float
    max_abs: float
    mean_abs_share: float | None
    agreement: float | None
    decisions: int = 0

    def within(self, tolerance: Tolerance) -> bool:
        """Whether a file may differ that much from what it should compute."""
        if self.mean_abs_share is None or self.mean_abs_share > tolerance.mean_abs:
            return False
        # on few samples one flipped decision must not outweigh the tolerance's fraction
        flips = round((1 - (1.0 if self.agreement is None else self.agreement)) * self.decisions)
        return flips <= max(int((1 - tolerance.agreement) * self.decisions), 1)


def class_axes(outputs: Sequence[TensorSpec], given: Mapping[str, int]) -> dict[str, int]:
    """The axis of each output along which the largest value is a decision.

    Outputs of shape (batch, classes) decide along the second one; of others nobody knows, unless
    it is given.

    Raises:
        RecipeError: A name is no output, or has no such axis.
    """
    names = [spec.name for spec in outputs]
    for name in given:
        if name not in names:
            raise RecipeError(
                f"--class-axis names no output of the model: {name!r}{nearest(name, names)}"
            )
    found = {
        spec.name: 1
        for spec in outputs
        if len(spec.shape) == 2 and (spec.shape[1] or 0) > 1 and spec.dtype == "float32"
    }
    return found | dict(given)


def compare(
    expected: Runner,
    got: Runner,
    feeds: Sequence[Feeds],
    *,
    axes: Mapping[str, int],
    title: str,
    progress: Progress,
) -> tuple[OutputParity, ...]:
    """Run both on every sample; a few samples' outputs are held at a time.

    Args:
        expected: Gives what should come out; all outputs of every sample.
        got: Gives what does.
        feeds: Of one inference each.
        axes: From `class_axes`.
        title: Of the progress bar.
        progress: Gets a bar.

    Raises:
        DataError: One of them fails on a sample, or their outputs differ in shape.
        ParityError: The second gives numbers that are not finite.
        RecipeError: An output has no such class axis.
    """
    numbers: dict[str, Fidelity] = {}
    equal: dict[str, list[int]] = {}
    with progress.bar(title, total=len(feeds)) as bar:
        for start in range(0, len(feeds), _AT_ONCE):
            part = feeds[start : start + _AT_ONCE]
            for wanted, found in zip(expected(part), got(part), strict=True):
                for name in wanted:
                    a, b = np.asarray(wanted[name]), np.asarray(found[name])
                    _check(name, a, b)
                    numbers.setdefault(name, Fidelity()).add(a, b)
                    decided = _decisions(name, a, b, axes)
                    counts = equal.setdefault(name, [0, 0])
                    if decided is not None:
                        counts[0] += int(decided.sum())
                        counts[1] += decided.size
            bar.advance(len(part))
    return tuple(
        OutputParity(
            name=name,
            n=seen.n,
            exact=seen.max_abs == 0.0,
            snr_db=_finite(seen.snr_db),
            cosine=seen.cosine,
            max_abs=seen.max_abs,
            mean_abs_share=_finite(seen.mean_abs_share),
            agreement=equal[name][0] / equal[name][1] if equal[name][1] else None,
            decisions=equal[name][1],
        )
        for name, seen in numbers.items()
    )


def session_runner(session: Session) -> Runner:
    """Run samples one by one in a session."""
    return lambda feeds: [session.run(feed) for feed in feeds]


def _check(name: str, expected: NDArray[np.generic], got: NDArray[np.generic]) -> None:
    if expected.shape != got.shape:
        raise DataError(
            f"The output {name!r} has another shape in the quantized file.",
            expected=str(expected.shape),
            got=str(got.shape),
        )
    if expected.dtype.kind == "f" and not np.isfinite(expected).all():
        raise DataError(f"The output {name!r} of the float model is not finite.")
    if got.dtype.kind == "f" and not np.isfinite(got).all():
        raise ParityError(f"The output {name!r} of the quantized file is not finite.")


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _decisions(
    name: str, expected: NDArray[np.generic], got: NDArray[np.generic], axes: Mapping[str, int]
) -> NDArray[np.bool_] | None:
    if expected.dtype.kind in "iub":
        return np.asarray(expected == got)
    if name not in axes or not expected.size:
        return None
    axis = axes[name]
    if not -expected.ndim <= axis < expected.ndim:
        raise RecipeError(
            f"--class-axis {name}={axis}: the output has no such axis.",
            expected=f"an axis of shape {expected.shape}",
            got=str(axis),
        )
    return np.asarray(expected.argmax(axis) == got.argmax(axis))
