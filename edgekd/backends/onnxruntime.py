"""ONNX Runtime, on the CPU or on the one execution provider that a target names."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from edgekd.backends._contract import BACKENDS
from edgekd.backends._feeds import check_feeds
from edgekd.backends._onnx.file import check, check_one_file
from edgekd.backends._refusal import first_line, refusal
from edgekd.backends._telemetry import without_telemetry
from edgekd.core.errors import DataError, RecipeError, UnsupportedError
from edgekd.core.files import atomic_write
from edgekd.core.types import TensorSpec

with without_telemetry():
    import onnxruntime

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from edgekd.backends._contract import Feeds
    from edgekd.core.target import Target
    from edgekd.core.types import LayerRecord

NAME = "ONNX Runtime"
CPU = "CPUExecutionProvider"
_FATAL = 4  # refusals reach the user as our errors, not as coloured lines on stderr
_DTYPES = {
    "float": "float32",
    "double": "float64",
    "string": "object",
    **{t: t for t in ("float16", "bool", "int8", "int16", "int32", "int64")},
    **{t: t for t in ("uint8", "uint16", "uint32", "uint64")},
}


@BACKENDS.register
class OnnxRuntime:
    """`target.options` are session configuration entries, e.g. ``session.qdqisint8allowed: 1``."""

    distribution: ClassVar[str] = "onnxruntime"

    def version(self) -> str:
        """Version of the installed runtime."""
        return str(onnxruntime.__version__)

    def check_machine(self, target: Target) -> None:
        """Raise unless the target's execution provider is in the installed runtime."""
        provider(target)

    def build(self, model: bytes, target: Target, out: Path) -> Path:
        """Write ``<out>.onnx``, after the runtime has really loaded it; see the contract."""
        path = out.with_name(out.name + ".onnx")
        check_one_file(model, path)
        options = session_options(target, target.conditions.threads)
        OnnxRuntimeSession(load(model, path, options, provider(target)), path).close()
        atomic_write(path, model)
        return path

    def open(self, path: Path, target: Target, *, threads: int) -> OnnxRuntimeSession:
        """Load an ONNX file; see the contract."""
        check(path)
        inner = load(path, path, session_options(target, threads), provider(target))
        return OnnxRuntimeSession(inner, path)

    def layers(
        self, path: Path, target: Target, feeds: Feeds, *, threads: int
    ) -> Sequence[LayerRecord]:
        """Nodes of the optimized graph with their mean times; see the contract."""
        from edgekd.backends._onnxruntime_layers import layers

        check(path)
        return layers(path, target, feeds, threads=threads)

    def layer_model(self, path: Path) -> bytes:
        """Every node with a name, by which the runtime's trace knows it; see the contract."""
        from edgekd.backends._onnxruntime_layers import named

        return bytes(named(path).SerializeToString())

    def read_layers(self, path: Path, reading: Mapping[str, bytes]) -> Sequence[LayerRecord]:
        """From a trace and an optimized graph; see the contract."""
        from edgekd.backends._onnxruntime_layers import named, read

        return read(named(path), reading["events"], reading["graph"])


class OnnxRuntimeSession:
    """A loaded file."""

    def __init__(self, inner: Any, path: Path) -> None:
        self._inner: Any = inner
        self._path = path
        self.inputs = tuple(_spec(i, path) for i in inner.get_inputs())
        self.outputs = tuple(_spec(o, path) for o in inner.get_outputs())

    def run(self, feeds: Feeds) -> dict[str, NDArray[np.generic]]:
        """All outputs by name.

        Raises:
            DataError: The feeds do not fit, or the model fails on them.
        """
        check_feeds(self.inputs, feeds, source=f"the feeds for {self._path.name}")
        try:
            values = self._inner.run(None, dict(feeds))
        except Exception as e:  # pybind raises a dozen classes without a common base
            raise DataError(f"{self._path} fails on these inputs.", got=first_line(e)) from e
        return {o.name: np.asarray(v) for o, v in zip(self.outputs, values, strict=True)}

    def bind(self, feeds: Feeds) -> Callable[[], object]:
        """One inference on fixed feeds, without converting them at each call."""
        self.run(feeds)  # so that whatever is wrong with them is said here
        if any(i.dtype == "object" for i in self.inputs):  # text cannot be bound
            return partial(self._inner.run, None, dict(feeds))
        binding = self._inner.io_binding()
        for name, array in feeds.items():
            binding.bind_cpu_input(name, np.ascontiguousarray(array).reshape(array.shape))
        for output in self.outputs:
            binding.bind_output(output.name, "cpu")
        return partial(self._inner.run_with_iobinding, binding)

    def close(self) -> None:
        """Free the session."""
        self._inner = None

    def __enter__(self) -> OnnxRuntimeSession:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def session_options(target: Target, threads: int) -> Any:
    """Options for one stream of inferences.

    Raises:
        RecipeError: An option of the target is no session configuration entry.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = _FATAL
    if threads > 1:
        # the pool spins on after a run and would steal time from what is timed next to it
        options.add_session_config_entry("session.force_spinning_stop", "1")
    for key, value in target.options.items():
        if "." not in key:  # the runtime ignores unknown keys without a word
            raise RecipeError(
                f"The target {target.name!r} has an option that ONNX Runtime does not know.",
                expected="a session configuration entry such as session.qdqisint8allowed",
                got=key,
            )
        text = str(int(value)) if isinstance(value, bool) else str(value)
        options.add_session_config_entry(key, text)
    return options


def provider(target: Target) -> str:
    """The execution provider for a target's processor.

    Raises:
        UnsupportedError: The installed runtime does not have it.
    """
    name = f"{target.processor}ExecutionProvider"
    present = onnxruntime.get_available_providers()
    if name not in present:
        known = ", ".join(p.removesuffix("ExecutionProvider") for p in present)
        raise UnsupportedError(
            f"{NAME} here cannot compute on the target's processor.",
            expected=f"processor: one of {known}",
            got=target.processor,
            todo="install the build of the runtime that has it, or change the target",
        )
    return name


def load(model: Path | bytes, path: Path, options: Any, provider: str) -> Any:
    """An InferenceSession on one provider alone; `path` names the model in errors.

    Raises:
        UnsupportedError: The runtime refuses the model, or would run a part of it elsewhere.
        DataError: The file is damaged.
    """
    if provider != CPU:
        # without it, whatever the provider does not take runs on the CPU, without a word
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        source = model if isinstance(model, bytes) else str(model)
        inner = onnxruntime.InferenceSession(source, options, providers=[provider])
    except Exception as e:  # pybind raises a dozen classes without a common base
        raise refusal(model, path, NAME, e) from e
    if inner.get_providers()[0] != provider:
        raise UnsupportedError(
            f"{NAME} would not run {path} where the target says.",
            expected=provider,
            got=", ".join(inner.get_providers()),
        )
    return inner


def _spec(arg: Any, path: Path) -> TensorSpec:
    element = arg.type.removeprefix("tensor(").removesuffix(")")
    if not arg.type.startswith("tensor(") or element not in _DTYPES:
        raise UnsupportedError(
            f"{path} takes or gives {arg.name!r}, which is no plain tensor.",
            expected=f"a tensor of {', '.join(sorted(_DTYPES))}",
            got=arg.type,
        )
    shape = tuple(d if isinstance(d, int) else None for d in arg.shape)
    return TensorSpec(arg.name, _DTYPES[element], shape)
