"""LiteRT with XNNPACK: one .tflite file, as a phone loads it."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from edgekd.backends._contract import BACKENDS
from edgekd.backends._feeds import check_feeds
from edgekd.backends._litert.call import RUNTIME
from edgekd.backends._litert.file import note, parsed
from edgekd.backends._litert.layers import layer_records
from edgekd.backends._phone import PhoneBackend
from edgekd.backends._refusal import first_line
from edgekd.core.errors import DataError, UnsupportedError
from edgekd.core.types import TensorSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import onnx
    from numpy.typing import NDArray

    from edgekd.backends._contract import Feeds
    from edgekd.core.target import Target
    from edgekd.core.types import LayerRecord

_DISTRIBUTION = "ai-edge-litert"


@BACKENDS.register
class LiteRT(PhoneBackend["LiteRTSession"]):
    """It has no options. What XNNPACK does not take runs in LiteRT's own kernels, and is told."""

    distribution: ClassVar[str] = _DISTRIBUTION
    title: ClassVar[str] = RUNTIME
    suffix: ClassVar[str] = ".tflite"

    def version(self) -> str:
        """Version of the installed runtime."""
        return version(_DISTRIBUTION)

    def compiler(self) -> Callable[[onnx.ModelProto, Path], bytes]:
        """Writes .tflite files."""
        from edgekd.backends._litert.program import compiled

        return compiled

    def session(self, content: bytes, path: Path, threads: int) -> LiteRTSession:
        """A loaded file.

        Raises:
            UnsupportedError: The runtime refuses it.
            DataError: It is damaged.
        """
        return LiteRTSession(content, path, threads)

    def layers(
        self, path: Path, target: Target, feeds: Feeds, *, threads: int
    ) -> Sequence[LayerRecord]:
        """Every operator and its kernel, with mean times in whole microseconds, rounded down.

        The times come from LiteRT's C library, see `edgekd.backends._litert.profile`; a version
        of it that does not tell them leaves them out.
        """
        from edgekd.backends._litert.profile import kernel_times
        from edgekd.backends._litert.program import NOTES

        self.check_machine(target)
        content = self.content(path)
        with self.session(content, path, threads) as session:
            check_feeds(session.inputs, feeds, source=f"the feeds for {path.name}")
            kernels = kernel_times(content, [feeds[i.name] for i in session.inputs], threads)
        apart = loaded(content, path, threads, experimental_disable_delegate_node_fusion=True)
        return list(layer_records(apart, note(parsed(content, path), NOTES, path), kernels))


class LiteRTSession:
    """A loaded file."""

    def __init__(self, content: bytes, path: Path, threads: int) -> None:
        parsed(content, path)
        self._content, self._path, self._threads = content, path, threads
        self._inner: Any = loaded(content, path, threads)
        self.inputs = tuple(_spec(d) for d in self._inner.get_input_details())
        self.outputs = tuple(_spec(d) for d in self._inner.get_output_details())

    def run(self, feeds: Feeds) -> dict[str, NDArray[np.generic]]:
        """All outputs by name.

        Raises:
            DataError: The feeds do not fit, or the model fails on them.
        """
        self._feed(self._inner, feeds)
        try:
            self._inner.invoke()
        except (RuntimeError, ValueError) as e:
            raise DataError(f"{self._path} fails on these inputs.", got=first_line(e)) from e
        places = [d["index"] for d in self._inner.get_output_details()]
        return {
            o.name: self._inner.get_tensor(i) for o, i in zip(self.outputs, places, strict=True)
        }

    def bind(self, feeds: Feeds) -> Callable[[], object]:
        """One inference on fixed feeds, in an interpreter of its own that keeps them."""
        self.run(feeds)  # so that whatever is wrong with them is said here
        own = loaded(self._content, self._path, self._threads)
        self._feed(own, feeds)
        call: Callable[[], object] = own.invoke
        return call

    def close(self) -> None:
        """Free the session."""
        self._inner = None

    def __enter__(self) -> LiteRTSession:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _feed(self, inner: Any, feeds: Feeds) -> None:
        check_feeds(self.inputs, feeds, source=f"the feeds for {self._path.name}")
        for detail in inner.get_input_details():
            inner.set_tensor(detail["index"], feeds[detail["name"]])


def loaded(content: bytes, path: Path, threads: int, **settings: bool) -> Any:
    """An interpreter with memory for its tensors; `path` names the file in errors.

    Raises:
        UnsupportedError: The runtime refuses the file.
    """
    try:
        inner: Any = Interpreter(model_content=content, num_threads=threads, **settings)
        inner.allocate_tensors()
    except (RuntimeError, ValueError) as e:
        raise UnsupportedError(
            f"{RUNTIME} cannot load {path}.",
            got=first_line(e),
            todo="build it again: edgekd build",
        ) from e
    return inner


def _spec(detail: Any) -> TensorSpec:
    shape = tuple(int(n) if n >= 0 else None for n in detail["shape_signature"])
    return TensorSpec(str(detail["name"]), np.dtype(detail["dtype"]).name, shape)
