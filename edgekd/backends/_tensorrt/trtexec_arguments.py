"""The command line of trtexec, in which version 11 changed what version 10 says.

Version 11 has no precision flags, since its networks are always strongly typed. By itself it
leaves the copies of inputs and outputs out of a latency, waits in a busy loop and replays a CUDA
graph; version 10 does the opposite of all three. A target says what it wants, and each version is
given the flags that differ from its own defaults, so that one target means one measurement.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

from edgekd.core.config import nearest
from edgekd.core.errors import RecipeError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgekd.core.target import Target

_UNSAFE = frozenset(",:'")


@dataclass(frozen=True, slots=True)
class Switches:
    """What a latency is; a target sets all of them in its options.

    Attributes:
        data_transfers: Copying inputs to the GPU and outputs back counts.
        spin_wait: The CPU waits in a busy loop: shorter and steadier times, a core more.
        cuda_graph: Kernels are launched together, as recorded once.
        tf32: Float32 may be computed with 10-bit mantissas.
    """

    data_transfers: bool
    spin_wait: bool
    cuda_graph: bool
    tf32: bool

    @classmethod
    def of(cls, target: Target) -> Switches:
        """The switches in a target's options.

        Raises:
            RecipeError: One is missing, unknown, or neither true nor false.
        """
        names = [field.name for field in fields(cls)]
        for key, value in target.options.items():
            if key not in names:
                raise RecipeError(
                    f"The target {target.name!r} has an unknown option{nearest(key, names)}",
                    got=key,
                )
            if not isinstance(value, bool):
                raise RecipeError(
                    f"The option {key} of the target {target.name!r} is not valid.",
                    expected="true or false",
                    got=repr(value),
                )
        missing = [name for name in names if name not in target.options]
        if missing:
            raise RecipeError(
                f"The target {target.name!r} leaves open what its latency is.",
                expected="options: " + ", ".join(f"{name}: true or false" for name in names),
                got=f"no {missing[0]}",
                todo="say all of them: TensorRT 10 and 11 differ in what they do by themselves",
            )
        return cls(**{name: bool(target.options[name]) for name in names})


def build_arguments(model: str, engine: str, *, major: int, switches: Switches) -> list[str]:
    """Build an engine and run nothing.

    No precision is asked for: it stands in the file, which a strongly typed network keeps.
    """
    return [
        f"--onnx={model}",
        f"--saveEngine={engine}",
        "--skipInference",
        "--profilingVerbosity=detailed",
        *_strongly_typed(major),
        *([] if switches.tf32 else ["--noTF32"]),
    ]


def time_arguments(
    engine: str,
    feeds: Mapping[str, str],
    times: str,
    *,
    runs: int,
    warm_up_ms: int,
    major: int,
    switches: Switches,
) -> list[str]:
    """Time `runs` inferences, one request at a time."""
    return [
        *_loaded(engine, feeds),
        *_rule(runs, warm_up_ms),
        *_switched(major, switches),
        f"--exportTimes={times}",
    ]


def profile_arguments(
    engine: str,
    feeds: Mapping[str, str],
    profile: str,
    info: str,
    *,
    runs: int,
    major: int,
    switches: Switches,
) -> list[str]:
    """Time every layer, in a run of its own, since that slows the whole."""
    return [
        *_loaded(engine, feeds),
        *_rule(runs, 0),
        *_switched(major, switches),
        *(["--separateProfileRun"] if major < 11 else []),
        "--profilingVerbosity=detailed",
        f"--exportProfile={profile}",
        f"--exportLayerInfo={info}",
    ]


def run_arguments(
    engine: str, feeds: Mapping[str, str], outputs: str, *, major: int, switches: Switches
) -> list[str]:
    """One inference, for its outputs, which must be copied back whatever a latency is."""
    copied = replace(switches, data_transfers=True)
    return [
        *_loaded(engine, feeds),
        *_rule(1, 0),
        *_switched(major, copied),
        f"--exportOutput={outputs}",
    ]


def _strongly_typed(major: int) -> list[str]:
    return ["--stronglyTyped"] if major < 11 else []


def _loaded(engine: str, feeds: Mapping[str, str]) -> list[str]:
    for name in feeds:
        if _UNSAFE & set(name):
            raise UnsupportedError(
                f"trtexec cannot be fed the input {name!r}.",
                expected="a name without , : and '",
                todo="rename the input in the file",
            )
    given = ",".join(f"{name}:{file}" for name, file in feeds.items())
    return [f"--loadEngine={engine}", f"--loadInputs={given}"]


def _rule(runs: int, warm_up_ms: int) -> list[str]:
    return [
        f"--iterations={runs}",
        "--duration=0",
        f"--warmUp={warm_up_ms}",
        "--infStreams=1",
        "--exposeDMA",  # by itself it has two requests under way, to hide the copies
    ]


def _switched(major: int, switches: Switches) -> list[str]:
    """Each flag says what differs from the version's own default; the other value has none."""
    if major < 11:
        flags = {
            "--noDataTransfers": not switches.data_transfers,
            "--useSpinWait": switches.spin_wait,
            "--useCudaGraph": switches.cuda_graph,
        }
    else:
        flags = {
            "--includeDataTransfers": switches.data_transfers,
            "--noSpinWait": not switches.spin_wait,
            "--noCudaGraph": not switches.cuda_graph,
        }
    return [flag for flag, given in flags.items() if given]
