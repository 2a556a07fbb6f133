"""ExecuTorch with XNNPACK: one .pte file, as a phone loads it."""

from __future__ import annotations

import json
import struct
import warnings
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from executorch.version import __version__

from edgekd.backends._contract import BACKENDS
from edgekd.backends._feeds import check_feeds
from edgekd.backends._onnx.file import check, check_one_file
from edgekd.backends._refusal import first_line
from edgekd.core.errors import DataError, RecipeError, UnsupportedError
from edgekd.core.files import atomic_write
from edgekd.core.types import LayerRecord, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from edgekd.backends._contract import Feeds
    from edgekd.core.target import Target

NAME = "ExecuTorch"
SUFFIX = ".pte"
_NOTES = "edgekd"
#: at byte 4 of a program: its kind, then sizes of the header, of the program, of what is before
#: the data, and of the data
_HEADER = struct.Struct("<2s2s4sIQQQ")


@BACKENDS.register
class ExecuTorch:
    """It has no options. What XNNPACK does not take runs in portable kernels, and is told."""

    distribution: ClassVar[str] = "executorch"

    def version(self) -> str:
        """Version of the installed runtime."""
        return str(__version__)

    def check_machine(self, target: Target) -> None:
        """Any machine will do; its times are its own, not a phone's."""
        _check_options(target)

    def build(self, model: bytes, target: Target, out: Path) -> Path:
        """Write ``<out>.pte``, after the runtime has really loaded it; see the contract."""
        from edgekd.backends._executorch.program import compiled

        _check_options(target)
        path = out.with_name(out.name + SUFFIX)
        check_one_file(model, path)
        program = compiled(model, path)
        ExecuTorchSession(program, path, target.conditions.threads).close()
        atomic_write(path, program)
        return path

    def open(self, path: Path, target: Target, *, threads: int) -> ExecuTorchSession:
        """Load a program, or compile an ONNX file; see the contract."""
        _check_options(target)
        return ExecuTorchSession(_program(path), path, threads)

    def layers(
        self, path: Path, target: Target, feeds: Feeds, *, threads: int
    ) -> Sequence[LayerRecord]:
        """Every kernel as it was compiled, without times: edgekd does not read its trace."""
        with self.open(path, target, threads=threads) as session:
            check_feeds(session.inputs, feeds, source=f"the feeds for {path.name}")
            return session.layers


class ExecuTorchSession:
    """A loaded program."""

    def __init__(self, program: bytes, path: Path, threads: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its packages warn about each other
            from executorch.extension.pybindings.portable_lib import _unsafe_reset_threadpool
            from executorch.runtime import Runtime

        self._path = path
        try:
            _unsafe_reset_threadpool(threads)
            # a method does not keep alive the program that it reads
            self._program: Any = Runtime.get().load_program(program)
            names = self._program.method_names
            self._method: Any = (
                self._program.load_method("forward") if "forward" in names else None
            )
            text = self._program.load_method(_NOTES).execute([])[0] if _NOTES in names else None
        except Exception as e:  # its bindings raise RuntimeError for whatever it is
            raise UnsupportedError(f"{NAME} cannot load {path}.", got=first_line(e)) from e
        if self._method is None or not isinstance(text, str):
            raise UnsupportedError(
                f"{path} does not say what its tensors are called.",
                expected="a program that edgekd has built",
                got=f"the methods {', '.join(sorted(names))}",
                todo="build it from its ONNX file: edgekd build",
            )
        try:
            notes = json.loads(text)
            self.inputs = tuple(TensorSpec(n, d, tuple(s)) for n, d, s in notes["inputs"])
            self.outputs = tuple(TensorSpec(n, d, tuple(s)) for n, d, s in notes["outputs"])
            self.layers = [
                LayerRecord(name, op, role, precision, None, reason)
                for name, op, role, precision, reason in notes["layers"]
            ]
        except (ValueError, KeyError, TypeError) as e:
            raise DataError(f"{path} holds damaged notes.", got=first_line(e)) from e

    def run(self, feeds: Feeds) -> dict[str, NDArray[np.generic]]:
        """All outputs by name.

        Raises:
            DataError: The feeds do not fit, or the program fails on them.
        """
        values = self._call(feeds)()
        return {o.name: v.numpy() for o, v in zip(self.outputs, values, strict=True)}

    def bind(self, feeds: Feeds) -> Callable[[], object]:
        """One inference on fixed feeds, without converting them at each call."""
        self.run(feeds)  # so that whatever is wrong with them is said here
        return self._call(feeds)

    def close(self) -> None:
        """Free the session."""
        self._method = self._program = None

    def __enter__(self) -> ExecuTorchSession:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _call(self, feeds: Feeds) -> Callable[[], Any]:
        import torch

        check_feeds(self.inputs, feeds, source=f"the feeds for {self._path.name}")
        tensors = [torch.from_numpy(feeds[i.name].copy()) for i in self.inputs]
        return partial(_execute, self._program, self._method, tensors)


def _execute(program: Any, method: Any, tensors: list[Any]) -> Any:
    """One inference; `program` only has to be alive."""
    return method.execute(tensors)


def _program(path: Path) -> bytes:
    if path.suffix != SUFFIX:
        from edgekd.backends._executorch.program import compiled

        check(path)
        return compiled(path, path)
    try:
        program = path.read_bytes()
    except OSError as e:
        raise DataError(f"{path} cannot be read.", got=str(e.strerror)) from e
    if len(program) < 4 + _HEADER.size:
        raise _damaged(path, f"{len(program)} bytes")
    kind, _, extended, _, size, before, data = _HEADER.unpack_from(program, 4)
    if kind != b"ET" or extended != b"eh00":
        raise _damaged(path, "another kind of file")
    if len(program) < max(size, before + data):
        raise _damaged(path, f"{len(program)} bytes of {max(size, before + data)}")
    return program


def _damaged(path: Path, got: str) -> DataError:
    return DataError(
        f"{path} is no whole {NAME} program.",
        expected="a .pte file",
        got=got,
        todo="build it again: edgekd build",
    )


def _check_options(target: Target) -> None:
    if target.options or target.processor != "CPU":
        raise RecipeError(
            f"The target {target.name!r} asks for what edgekd's {NAME} has not.",
            expected="processor CPU, and no options",
            got=", ".join(target.options) or target.processor,
        )
