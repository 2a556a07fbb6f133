"""Times of LiteRT's kernels, read in a process of their own.

LiteRT's Python has no profiler. Its C library has one, but no headers come with it, and what it
takes and fills has changed between versions. A call that no longer fits may end a process, so it
is made in another one, and whatever goes wrong there means that there are no times.
"""

from __future__ import annotations

import ctypes
import json
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_TIMEOUT_S, _RUNS, _WARM_UP, _LONGEST_S = 120, 50, 5, 5.0
_CPU, _WRITE = 1, 1  # the accelerator, and the way to lock a buffer
#: an event begins with its name, its kind (before 4 empty bytes), its start and its length in us
_EVENT = struct.Struct("<Qi4xQQ")
#: with two or three numbers for memory at its begin and at its end
_EVENT_BYTES = (88, 104)
_LARGEST_EVENT_BYTES = 128
_UNTOUCHED = 0xAB
#: an operator of LiteRT's own, and one that a delegate reports for itself
_KERNELS = (2, 8)
_TYPE_BYTES = 1024  # more than the description of a tensor takes


def kernel_times(
    content: bytes, inputs: Sequence[NDArray[np.generic]], threads: int
) -> list[tuple[str, float]]:
    """Name and mean time in us of every kernel, in the order in which they run.

    LiteRT counts whole microseconds and drops the rest, so a kernel below one counts as 0.

    Args:
        content: Of a .tflite file.
        inputs: In the file's order.
        threads: Of XNNPACK.

    Returns:
        Nothing where this version of the library does not tell.
    """
    with tempfile.TemporaryDirectory(prefix="edgekd-litert-") as folder:
        path = Path(folder) / "model.tflite"
        path.write_bytes(content)
        np.savez(path.with_suffix(".npz"), *inputs)
        command = [sys.executable, "-P", "-m", __name__, str(path), str(threads)]
        try:
            done = subprocess.run(command, capture_output=True, timeout=_TIMEOUT_S, check=True)
            found = json.loads(done.stdout)
        except (OSError, subprocess.SubprocessError, ValueError):
            return []
    return [(str(name), float(time_us)) for name, time_us in found]


class _Library:
    """The C library; every call raises unless it returns 0."""

    def __init__(self) -> None:
        import ai_edge_litert

        folder = Path(next(iter(ai_edge_litert.__path__)))
        self._library = ctypes.CDLL(str(folder / "libLiteRt.so"))

    def call(self, name: str, *arguments: Any) -> None:
        """Call ``LiteRt<name>``."""
        status = getattr(self._library, f"LiteRt{name}")(*arguments)
        if status:
            raise RuntimeError(f"LiteRt{name} gave {status}")

    def made(self, name: str, *arguments: Any) -> ctypes.c_void_p:
        """The object that ``LiteRt<name>`` puts behind its last argument."""
        handle = ctypes.c_void_p()
        self.call(name, *arguments, ctypes.byref(handle))
        return handle


_Free = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_keep = _Free(lambda _: None)


class _Profiled:
    """A compiled model with its profiler on."""

    def __init__(
        self, content: bytes, inputs: Sequence[NDArray[np.generic]], threads: int
    ) -> None:
        self._lib = lib = _Library()
        self._content = ctypes.create_string_buffer(content, len(content))
        self._environment = lib.made("CreateEnvironment", 0, None)
        size = ctypes.c_size_t(len(content))
        model = lib.made("CreateModelFromBuffer", self._environment, self._content, size)
        self._texts = [b"enable_profiling = true\n", f"num_threads = {threads}\n".encode()]
        options = lib.made("CreateOptions")
        lib.call("SetOptionsHardwareAccelerators", options, _CPU)
        for name, text in zip((b"runtime_options_string", b"xnnpack"), self._texts, strict=True):
            lib.call(
                "AddOpaqueOptions", options, lib.made("CreateOpaqueOptions", name, text, _keep)
            )
        self._model = lib.made("CreateCompiledModel", self._environment, model, options)
        self._profiler = lib.made("CompiledModelGetProfiler", self._model)
        signature = lib.made("GetModelSignature", model, _index(0))
        count = ctypes.c_size_t()
        lib.call("GetNumSignatureOutputs", signature, ctypes.byref(count))
        self._inputs = [self._buffer(signature, "Input", i) for i in range(len(inputs))]
        self._outputs = [self._buffer(signature, "Output", i) for i in range(count.value)]
        for buffer, value in zip(self._inputs, inputs, strict=True):
            place = ctypes.c_void_p()
            lib.call("LockTensorBuffer", buffer, ctypes.byref(place), _WRITE)
            ctypes.memmove(place, np.ascontiguousarray(value).tobytes(), value.nbytes)
            lib.call("UnlockTensorBuffer", buffer)

    def run(self) -> list[tuple[str, int]]:
        """Name and time in us of every kernel of one inference."""
        self._lib.call("ResetProfiler", self._profiler)
        self._lib.call("StartProfiler", self._profiler)
        sides = [
            part
            for side in (self._inputs, self._outputs)
            for part in (ctypes.c_size_t(len(side)), (ctypes.c_void_p * len(side))(*side))
        ]
        self._lib.call("RunCompiledModel", self._model, _index(0), *sides)
        self._lib.call("StopProfiler", self._profiler)
        return self._events()

    def _events(self) -> list[tuple[str, int]]:
        number = ctypes.c_int()
        self._lib.call("GetNumProfilerEvents", self._profiler, ctypes.byref(number))
        count = number.value
        raw = (ctypes.c_uint8 * (count * _LARGEST_EVENT_BYTES))()
        ctypes.memset(raw, _UNTOUCHED, len(raw))
        self._lib.call("GetProfilerEvents", self._profiler, count, raw)
        data = bytes(raw)
        # how far it wrote tells how long an event is; the last may end in empty bytes
        written = int(np.flatnonzero(np.frombuffer(data, np.uint8) != _UNTOUCHED).max()) + 1
        stride = next(n for n in _EVENT_BYTES if 0 <= count * n - written < 8)
        found = []
        for place in range(0, count * stride, stride):
            name, kind, _, time_us = _EVENT.unpack_from(data, place)
            if kind in _KERNELS:
                found.append((ctypes.string_at(name).decode(), int(time_us)))
        return found

    def _buffer(self, signature: ctypes.c_void_p, side: str, index: int) -> ctypes.c_void_p:
        tensor = self._lib.made(f"GetSignature{side}TensorByIndex", signature, _index(index))
        kind = ctypes.create_string_buffer(_TYPE_BYTES)
        self._lib.call("GetRankedTensorType", tensor, kind)
        needs = self._lib.made(
            f"GetCompiledModel{side}BufferRequirements", self._model, _index(0), _index(index)
        )
        return self._lib.made(
            "CreateManagedTensorBufferFromRequirements", self._environment, kind, needs
        )


def _index(value: int) -> ctypes.c_size_t:
    return ctypes.c_size_t(value)


def _main(path: Path, threads: int) -> None:
    with np.load(path.with_suffix(".npz")) as stored:
        inputs = [stored[name] for name in stored.files]
    profiled = _Profiled(path.read_bytes(), inputs, threads)
    for _ in range(_WARM_UP):
        profiled.run()
    runs: list[list[tuple[str, int]]] = []
    end = time.perf_counter() + _LONGEST_S
    while len(runs) < _RUNS and time.perf_counter() < end:
        runs.append(profiled.run())
    names = [name for name, _ in runs[0]]
    if any([name for name, _ in run] != names for run in runs):
        raise RuntimeError("the kernels differ from run to run")
    means = np.mean([[time_us for _, time_us in run] for run in runs], axis=0)
    sys.stdout.write(json.dumps(list(zip(names, means.tolist(), strict=True))))


if __name__ == "__main__":
    _main(Path(sys.argv[1]), int(sys.argv[2]))
