"""A runtime of phones: edgekd compiles its files from ONNX ones, and opens them on any machine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

from edgekd.backends._onnx.file import check, check_one_file
from edgekd.backends._refusal import refusal
from edgekd.core.errors import DataError, EdgekdError, RecipeError
from edgekd.core.files import atomic_write

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import onnx

    from edgekd.backends._contract import Session
    from edgekd.core.target import Target

S = TypeVar("S", bound="Session")


class PhoneBackend(ABC, Generic[S]):
    """What such backends share; it has no options, and runs on CPUs alone.

    Attributes:
        title: The runtime's name, for errors.
        suffix: Of its files.
    """

    title: ClassVar[str]
    suffix: ClassVar[str]

    @abstractmethod
    def compiler(self) -> Callable[[onnx.ModelProto, Path], bytes]:
        """Makes the runtime's file; imported here, since opening one needs none.

        Its second argument names the model in errors. It may raise anything.
        """

    @abstractmethod
    def session(self, content: bytes, path: Path, threads: int) -> S:
        """The runtime's file, loaded; `path` names it in errors."""

    def check_machine(self, target: Target) -> None:
        """Any machine will do; its times are its own, not a phone's."""
        if target.options or target.processor != "CPU":
            raise RecipeError(
                f"The target {target.name!r} asks for what edgekd's {self.title} has not.",
                expected="processor CPU, and no options",
                got=", ".join(target.options) or target.processor,
            )

    def build(self, model: bytes, target: Target, out: Path) -> Path:
        """Write the runtime's file, after it has really loaded it; see the contract."""
        self.check_machine(target)
        path = out.with_name(out.name + self.suffix)
        check_one_file(model, path)
        content = self._compiled(model, path)
        self.session(content, path, target.conditions.threads).close()
        atomic_write(path, content)
        return path

    def open(self, path: Path, target: Target, *, threads: int) -> S:
        """Load a file of the runtime's, or compile an ONNX one; see the contract."""
        self.check_machine(target)
        return self.session(self.content(path), path, threads)

    def content(self, path: Path) -> bytes:
        """Of a file of the runtime's, or of what an ONNX one is compiled to.

        Raises:
            UnsupportedError: The model cannot be brought to the runtime.
            DataError: The file is damaged, or not there.
        """
        if path.suffix != self.suffix:
            check(path)
            return self._compiled(path, path)
        try:
            return path.read_bytes()
        except OSError as e:
            raise DataError(f"{path} cannot be read.", got=str(e.strerror)) from e

    def _compiled(self, model: bytes | Path, path: Path) -> bytes:
        import onnx

        compiled = self.compiler()
        try:
            proto = onnx.load_from_string(model) if isinstance(model, bytes) else onnx.load(model)
            return compiled(proto, path)
        except EdgekdError:
            raise
        except Exception as e:  # compilers raise what their passes raise, and onnx its checker
            raise refusal(model, path, self.title, e) from e
