"""Peak memory of one file, in a process that holds nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgekd.core.errors import DeviceError, EdgekdError

if TYPE_CHECKING:
    from edgekd.core.target import Target

_RUNS = 10
_TIMEOUT_S = 300.0
_STATUS = Path("/proc/self/status")
_KIB_PER_MIB = 1024


@dataclass(frozen=True, slots=True)
class MemoryFigure:
    """Resident memory of a fresh process.

    Attributes:
        peak_mib: At most, after loading the file and running it 10 times.
        runtime_mib: After importing the runtime, before loading the file.
    """

    peak_mib: float
    runtime_mib: float


def peak_memory(
    path: Path, target: Target, feeds_npz: Path, *, timeout_s: float = _TIMEOUT_S
) -> MemoryFigure:
    """Load and run a file in a process of its own and read what that took.

    Args:
        path: The artifact.
        target: Under whose backend, options and threads it runs.
        feeds_npz: Inputs of one inference by name, as ``numpy.savez`` writes them.
        timeout_s: After which the process is ended.

    Raises:
        DeviceError: The process died, took too long, or could not read its memory.
    """
    command = [
        *(sys.executable, "-P", "-m", "edgekd.profile.memory"),  # -P: not the current folder
        *(str(path), str(feeds_npz), target.model_dump_json()),
    ]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as e:
        raise DeviceError(
            f"Measuring the memory of {path} took too long.",
            expected=f"{_RUNS} inferences in {timeout_s:g} s",
            todo="use a smaller model or batch",
        ) from e
    if done.returncode != 0:
        raise DeviceError(
            f"The process that measured the memory of {path} died.",
            expected=f"{_RUNS} inferences",
            got=_last_words(done),
            todo="if it was killed, the model needs more memory than there is",
        )
    figures = json.loads(done.stdout.splitlines()[-1])
    return MemoryFigure(**figures)


def _last_words(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode < 0:
        return f"killed by signal {-done.returncode}"
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"exit code {done.returncode}"


def _high_water_mib() -> float:
    """Peak resident memory of this process.

    Not `resource.getrusage`: its ru_maxrss survives exec, so a child started by a process that
    holds torch would report its parent's gigabyte. VmHWM belongs to the memory of this program
    alone.
    """
    for line in _STATUS.read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / _KIB_PER_MIB
    raise DeviceError(f"{_STATUS} does not tell the peak memory (VmHWM).")


def _child(path: Path, feeds_npz: Path, target_json: str) -> MemoryFigure:
    """What the fresh process does; it must import neither torch nor onnx."""
    import numpy as np

    from edgekd.backends._contract import BACKENDS
    from edgekd.core.target import Target

    target = Target.model_validate_json(target_json)
    backend = BACKENDS.get(target.backend)()
    with np.load(feeds_npz, allow_pickle=False) as archive:
        feeds = {name: archive[name] for name in archive.files}
    runtime_mib = _high_water_mib()
    with backend.open(path, target, threads=target.conditions.threads) as session:
        for _ in range(_RUNS):
            session.run(feeds)
    return MemoryFigure(peak_mib=_high_water_mib(), runtime_mib=runtime_mib)


def _main(arguments: list[str]) -> int:
    path, feeds_npz, target_json = arguments
    try:
        figure = _child(Path(path), Path(feeds_npz), target_json)
    except EdgekdError as e:
        sys.stderr.write(" ".join(e.message.split()) + "\n")
        return 1
    sys.stdout.write(
        json.dumps({"peak_mib": figure.peak_mib, "runtime_mib": figure.runtime_mib}) + "\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
