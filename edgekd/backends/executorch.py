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
from edgekd.backends._phone import PhoneBackend
from edgekd.backends._refusal import first_line
from edgekd.core.errors import DataError, UnsupportedError
from edgekd.core.types import LayerRecord, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy as np
    import onnx
    from numpy.typing import NDArray

    from edgekd.backends._contract import Feeds
    from edgekd.core.target import Target

NAME = "ExecuTorch"
#: a method of the program that only returns what edgekd wrote down when it built it
NOTES = "edgekd"
#: at byte 4 of a program: its kind, then sizes of the header, of the program, of what is before
#: the data, and of the data
_HEADER = struct.Struct("<2s2s4sIQQQ")


@BACKENDS.register
class ExecuTorch(PhoneBackend["ExecuTorchSession"]):
    """It has no options. What XNNPACK does not take runs in portable kernels, and is told."""

    distribution: ClassVar[str] = "executorch"
    title: ClassVar[str] = NAME
    suffix: ClassVar[str] = ".pte"

    def version(self) -> str:
        """Version of the installed runtime."""
        return str(__version__)

    def compiler(self) -> Callable[[onnx.ModelProto, Path], bytes]:
        """Writes .pte programs, with notes on their tensors and kernels inside."""
        from edgekd.backends._executorch.program import compiled

        return compiled

    def session(self, content: bytes, path: Path, threads: int) -> ExecuTorchSession:
        """A loaded program.

        Raises:
            UnsupportedError: The runtime refuses it, or edgekd has not built it.
            DataError: It is damaged.
        """
        return ExecuTorchSession(content, path, threads)

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
        _check_whole(program, path)
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
            text = self._program.load_method(NOTES).execute([])[0] if NOTES in names else None
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


def _check_whole(program: bytes, path: Path) -> None:
    if len(program) < 4 + _HEADER.size:
        raise _damaged(path, f"{len(program)} bytes")
    kind, _, extended, _, size, before, data = _HEADER.unpack_from(program, 4)
    if kind != b"ET" or extended != b"eh00":
        raise _damaged(path, "another kind of file")
    if len(program) < max(size, before + data):
        raise _damaged(path, f"{len(program)} bytes of {max(size, before + data)}")


def _damaged(path: Path, got: str) -> DataError:
    return DataError(
        f"{path} is no whole {NAME} program.",
        expected="a .pte file",
        got=got,
        todo="build it again: edgekd build",
    )
