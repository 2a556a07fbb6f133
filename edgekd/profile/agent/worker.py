"""One request in a process of its own: read from a folder, done, answered into the folder.

The folder holds ``request.json`` and ``inputs.bin``; it gets ``answer.json`` and ``outputs.bin``.
Long work puts what it has so far beside them, in parts that are sent on and removed meanwhile.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import machine, timing

if TYPE_CHECKING:
    from collections.abc import Mapping

_MEMORY_RUNS = 10
_STATUS = Path("/proc/self/status")
_KIB_PER_MIB = 1024
_LONGEST = 500
_PACKAGES = ("numpy", "onnxruntime", "openvino")


def main() -> None:
    """Answer the request in the folder that the command line names."""
    folder = Path(sys.argv[1])
    threading.Thread(target=_end_with_parent, args=(folder,), daemon=True).start()
    try:
        answer, arrays = _answer(folder)
    except Exception as e:  # whatever it is, the other side has to be told
        answer, arrays = {"error": {"code": _code(e), "text": _one_line(e)}}, {}
    _write(folder, "answer.json", "outputs.bin", answer, arrays)


def _answer(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    request = json.loads((folder / "request.json").read_text())
    if request["task"] == "describe":
        return _describe(request, folder), {}
    try:
        import numpy  # noqa: F401  # the one package that everything below stands on
    except ImportError as e:
        from .runtimes import RefusedError

        raise RefusedError("missing", f"numpy ({e})") from e
    from .arrays import unpack

    arrays = unpack(request["arrays"], (folder / "inputs.bin").read_bytes())
    work = {
        "measure": _measure,
        "sustain": _sustain,
        "run": _run,
        "memory": _memory,
        "layers": _layers,
        "call": _call,
    }
    return work[request["task"]](request, arrays, folder)


def _describe(request: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """What the device is, which runtimes it has, and how much room."""
    usage = shutil.disk_usage(folder)
    return {
        "environment": _environment(),
        "runtimes": machine.versions(request["packages"]),
        "free_bytes": usage.free,
        "memory_bytes": machine.memory_bytes(),
    }


def _measure(
    request: Mapping[str, Any], arrays: Mapping[str, Any], folder: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Time all models in turns, under the rule of the request."""
    import numpy as np

    rule = timing.Rule(**request["rule"])
    before = _environment()
    opened = [_open(model) for model in request["models"]]
    series = [
        timing.Series([session.bind(feeds) for feeds in _feeds(index, model, arrays)])
        for index, (session, model) in enumerate(zip(opened, request["models"]))
    ]
    with timing.without_collection():
        timing.prepare(series, rule)
        for _ in timing.turns(series, rule):
            pass
    before["state"]["load_average_after"] = machine.state()["load_average"]
    samples = {str(i): np.asarray(s.samples_ns, np.int64) for i, s in enumerate(series)}
    return {"environment": before}, samples


def _sustain(
    request: Mapping[str, Any], arrays: Mapping[str, Any], folder: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run one model back to back; every piece of the run is told as soon as it is there."""
    import numpy as np

    from . import endurance, energy

    counters = energy.find_counters()
    before = _environment()
    (model,) = request["models"]
    session = _open(model)
    calls = [session.bind(feeds) for feeds in _feeds(0, model, arrays)]
    head = {"environment": before, "counters": [counter.name for counter in counters]}
    _tell(folder, 0, head, {})
    with timing.without_collection():
        run = endurance.pieces(calls, request["duration_s"], counters)
        for number, piece in enumerate(run, 1):
            body = {"window": piece.window, "reading": piece.reading}
            _tell(folder, number, body, {"samples": np.asarray(piece.samples_ns, np.int64)})
    return {}, {}


def _run(
    request: Mapping[str, Any], arrays: Mapping[str, Any], folder: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Outputs of every inference, stacked: (N, …) for each name."""
    import numpy as np

    (model,) = request["models"]
    session = _open(model)
    found = [session.run(feeds) for feeds in _feeds(0, model, arrays)]
    return {}, {name: np.stack([one[name] for one in found]) for name in found[0]}


def _memory(
    request: Mapping[str, Any], arrays: Mapping[str, Any], folder: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Peak resident memory of this fresh process, before and after it runs the model."""
    from .runtimes import load

    (model,) = request["models"]
    load(model["backend"])
    runtime_mib = _high_water_mib()
    session = _open(model)
    feeds = _feeds(0, model, arrays)[0]
    for _ in range(_MEMORY_RUNS):
        session.run(feeds)
    return {"runtime_mib": runtime_mib, "peak_mib": _high_water_mib()}, {}


def _layers(
    request: Mapping[str, Any], arrays: Mapping[str, Any], folder: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the runtime says about its nodes, as it says it; the other side reads it."""
    import numpy as np

    (model,) = request["models"]
    reading = _open(model).reading(_feeds(0, model, arrays)[0], folder)
    return {}, {name: np.frombuffer(text, np.uint8) for name, text in reading.items()}


def _call(
    request: Mapping[str, Any], arrays: Mapping[str, Any], folder: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Call a program; its reports go over as they are."""
    import numpy as np

    from . import program

    answer, reports = program.call(request, arrays, folder)
    return answer, {name: np.frombuffer(text, np.uint8) for name, text in reports.items()}


def _tell(folder: Path, number: int, part: dict[str, Any], arrays: dict[str, Any]) -> None:
    """Lay a part of the answer down, and wake the parent up, which sends it on."""
    _write(folder, f"part-{number}.json", f"part-{number}.bin", part, arrays)
    os.write(1, b".")


def _write(
    folder: Path, name: str, body: str, answer: dict[str, Any], arrays: Mapping[str, Any]
) -> None:
    """An answer and its arrays; the answer comes into being last, and whole."""
    heads: list[Any] = []
    with (folder / body).open("wb") as f:
        if arrays:
            from .arrays import pack

            heads, bodies = pack(arrays)
            f.writelines(bodies)
    temp = folder / "temp.json"
    temp.write_text(json.dumps({**answer, "arrays": heads}))
    os.replace(temp, folder / name)


def _open(model: Mapping[str, Any]) -> Any:
    from .runtimes import RefusedError, load

    runtime = load(model["backend"])
    try:
        return runtime(model)
    except Exception as e:  # runtimes raise a dozen classes without a common base
        raise RefusedError("refused", _one_line(e)) from e


def _feeds(index: int, model: Mapping[str, Any], arrays: Mapping[str, Any]) -> list[Any]:
    """One mapping per inference; every array in memory of its own."""
    stacked = {name: arrays[f"{index}/{name}"] for name in model["inputs"]}
    return [
        {name: a[i : i + 1].reshape(a.shape[1:]).copy() for name, a in stacked.items()}
        for i in range(model["count"])
    ]


def _environment() -> dict[str, Any]:
    return {
        "machine": machine.machine(),
        "versions": machine.versions(_PACKAGES),
        "state": machine.state(),
    }


def _high_water_mib() -> float:
    """Peak resident memory of this process; ru_maxrss would be its parent's too."""
    for line in _STATUS.read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / _KIB_PER_MIB
    raise OSError(f"{_STATUS} does not tell the peak memory (VmHWM)")


def _end_with_parent(folder: Path) -> None:
    """The parent holds our stdin open; when that ends, so has the parent, however it did."""
    os.read(0, 1)  # not sys.stdin: its lock would be held when the interpreter ends
    shutil.rmtree(folder, ignore_errors=True)
    os.killpg(os.getpgrp(), signal.SIGKILL)  # programs that it called too


def _code(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "no_space"
    if isinstance(error, MemoryError):
        return "no_memory"
    return getattr(error, "code", "failed")


def _one_line(error: BaseException) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:_LONGEST]
