"""What a device answers, checked before anything is believed of it."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    JsonValue,
    StringConstraints,
    ValidationError,
)

from edgekd.core.config import Config
from edgekd.profile.agent.arrays import unpack
from edgekd.profile.agent.timing import finished
from edgekd.profile.memory import MemoryFigure
from edgekd.profile.transports._stream import NonsenseError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from edgekd.profile.agent.timing import Rule

_Model = TypeVar("_Model", bound=BaseModel)
#: whose versions a device is asked for
PACKAGES = ("numpy", "onnxruntime", "openvino")
_STATE_BYTES = 1 << 14
#: clocks of two machines may run this much apart
CLOCKS = 1.05
#: no inference takes less; bounds how many samples a device may send
FASTEST_NS = 500


def _tame(text: str) -> str:
    if not text.isprintable():
        raise ValueError("a character that is not to be printed")
    return text


_Word = Annotated[str, StringConstraints(max_length=200), AfterValidator(_tame)]
_Count = Annotated[int, Field(ge=0, le=2**60)]
_Joules = Annotated[float, Field(ge=-1e12, le=1e12)]


class Machine(Config):
    """What stays the same on a device."""

    architecture: _Word
    cpu: _Word
    cpu_flags: Annotated[tuple[_Word, ...], Field(max_length=100)]
    cores_usable: Annotated[int, Field(ge=1, le=2**16)]
    hypervisor: bool
    os: _Word
    kernel: _Word
    python: _Word


class Environment(Config):
    """The machine behind a figure; `state` holds whatever could be read, but not much of it."""

    machine: Machine
    versions: Annotated[dict[_Word, _Word | None], Field(max_length=100)]
    state: Annotated[dict[_Word, JsonValue], Field(max_length=100)]


class Described(Config):
    """What a device says about itself.

    Attributes:
        environment: Machine, versions and state.
        runtimes: Version of each package that was asked for; None where it is not installed.
        free_bytes: Where models are kept.
        memory_bytes: Of the whole machine.
    """

    environment: Environment
    runtimes: Annotated[dict[_Word, _Word | None], Field(max_length=100)]
    free_bytes: _Count
    memory_bytes: _Count


class Timed(Config):
    """Beside the samples."""

    environment: Environment


class Begun(Config):
    """What comes before the first piece of a long run."""

    environment: Environment
    counters: Annotated[tuple[_Word, ...], Field(max_length=100)]


class Reading(Config):
    """At the end of a window of a long run; joules of each counter since its start."""

    temperature_c: Annotated[float, Field(ge=-300, le=1000)] | None
    frequency_khz: Annotated[int, Field(ge=0, le=10**9)] | None
    joules: Annotated[
        tuple[Annotated[float, Field(ge=-1e12, le=1e12)], ...], Field(max_length=100)
    ]


class Piece(Config):
    """A part of a window of a long run, beside its samples."""

    window: Annotated[int, Field(ge=0)]
    reading: Reading | None


class Weighed(Config):
    """Resident memory of a fresh process, MiB."""

    runtime_mib: Annotated[float, Field(gt=0, le=2**24)]
    peak_mib: Annotated[float, Field(gt=0, le=2**24)]


class Failure(Config):
    """What went wrong there, as a code and in words."""

    code: _Word
    text: str


def arrays_of(answer: dict[str, Any], body: bytes) -> dict[str, NDArray[np.generic]]:
    """The arrays that an answer announces; takes them out of it.

    Raises:
        NonsenseError: Their bytes are not exactly what came.
    """
    try:
        return unpack(answer.pop("arrays"), body)
    except (KeyError, ValueError, TypeError, OverflowError) as e:
        raise NonsenseError(f"arrays that are none: {e}") from e


def plain(model: type[_Model], answer: Mapping[str, Any]) -> _Model:
    """The answer as `model`.

    Raises:
        NonsenseError: It has other fields or values.
    """
    try:
        made = model.model_validate(answer)
    except (ValidationError, RecursionError) as e:
        where = e.errors()[0]["loc"] if isinstance(e, ValidationError) else ("depth",)
        raise NonsenseError(f"an answer with a wrong {'.'.join(map(str, where))[:100]}") from e
    environment = getattr(made, "environment", None)
    if environment is not None:
        if len(json.dumps(environment.state)) > _STATE_BYTES:
            raise NonsenseError("a state of many bytes")
        if not all(text.isprintable() for text in _texts(environment.state)):
            raise NonsenseError("a state that is not to be printed")
    return made


def _texts(value: Any) -> Iterator[str]:
    """Every text in a JSON value, keys aside."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)


def samples_of(
    arrays: Mapping[str, NDArray[np.generic]], count: int, rule: Rule, elapsed_s: float
) -> list[tuple[int, ...]]:
    """All samples of each of `count` models, ns.

    Raises:
        NonsenseError: Some are missing or impossible, or they are fewer than the rule asks for,
            or took longer together than the question.
    """
    if sorted(arrays) != sorted(str(i) for i in range(count)):
        raise NonsenseError(f"samples of {len(arrays)} models instead of {count}")
    found = []
    for index in range(count):
        values = clocked(arrays[str(index)])
        if not values:
            raise NonsenseError("samples that are no list of whole ns")
        if not finished(values, sum(values), rule):
            raise NonsenseError(f"{len(values)} samples, fewer than were asked for")
        found.append(tuple(values))
    if sum(map(sum, found)) > elapsed_s * 1e9 * CLOCKS:
        raise NonsenseError("samples that took longer together than the whole question")
    return found


def clocked(samples: NDArray[np.generic]) -> list[int]:
    """Samples in ns, as a clock can have given them.

    Raises:
        NonsenseError: They are something else.
    """
    if samples.dtype != np.int64 or samples.ndim != 1:
        raise NonsenseError("samples that are no list of whole ns")
    values: list[int] = samples.tolist()
    if min(values, default=1) <= 0:
        raise NonsenseError("samples that no clock can have given")
    return values


def outputs_of(
    arrays: Mapping[str, NDArray[np.generic]], names: Sequence[str], count: int
) -> list[dict[str, NDArray[np.generic]]]:
    """Outputs by name for each of `count` inferences.

    Raises:
        NonsenseError: They are others, or not as many.
    """
    if sorted(arrays) != sorted(names) or any(a.ndim < 1 for a in arrays.values()):
        raise NonsenseError("outputs of other names")
    if any(len(a) != count for a in arrays.values()):
        raise NonsenseError(f"outputs of another number than {count} inferences")
    return [{name: arrays[name][i] for name in names} for i in range(count)]


def memory_of(answer: Mapping[str, Any]) -> MemoryFigure:
    """Both figures.

    Raises:
        NonsenseError: They are none, or the peak lies below the runtime.
    """
    made = plain(Weighed, answer)
    if made.peak_mib < made.runtime_mib or not math.isfinite(made.peak_mib):
        raise NonsenseError("a peak below what was there before")
    return MemoryFigure(peak_mib=made.peak_mib, runtime_mib=made.runtime_mib)
