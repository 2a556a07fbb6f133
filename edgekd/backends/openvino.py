"""OpenVINO, on the CPU or on the one device that a target names."""

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
    import openvino as ov

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from edgekd.backends._contract import Feeds
    from edgekd.core.target import Target
    from edgekd.core.types import LayerRecord

NAME = "OpenVINO"
#: what the target's conditions decide, so no option may
_RESERVED = ("INFERENCE_NUM_THREADS", "NUM_STREAMS", "PERFORMANCE_HINT", "PERF_COUNT")


@BACKENDS.register
class OpenVino:
    """`target.options` are properties of OpenVINO's plugin for the target's processor."""

    distribution: ClassVar[str] = "openvino"

    def version(self) -> str:
        """Version of the installed runtime, without its build number."""
        return str(ov.__version__).partition("-")[0]

    def check_machine(self, target: Target) -> None:
        """Raise unless OpenVINO finds the target's processor here."""
        device(target)

    def build(self, model: bytes, target: Target, out: Path) -> Path:
        """Write ``<out>.onnx``, after the runtime has really compiled it; see the contract."""
        path = out.with_name(out.name + ".onnx")
        check_one_file(model, path)
        compiled(model, path, device(target), properties(target, target.conditions.threads))
        atomic_write(path, model)
        return path

    def open(self, path: Path, target: Target, *, threads: int) -> OpenVinoSession:
        """Compile an ONNX file; see the contract."""
        outline = check(path)
        inner = compiled(path, path, device(target), properties(target, threads))
        return OpenVinoSession(inner, path, outline.inputs, outline.outputs)

    def layers(
        self, path: Path, target: Target, feeds: Feeds, *, threads: int
    ) -> Sequence[LayerRecord]:
        """Nodes of the compiled graph with their mean times; see the contract."""
        from edgekd.backends._openvino_layers import layers

        return layers(path, target, feeds, threads=threads)

    def layer_model(self, path: Path) -> bytes:
        """The file as it is: this runtime keeps the file's own names; see the contract."""
        return path.read_bytes()

    def read_layers(self, path: Path, reading: Mapping[str, bytes]) -> Sequence[LayerRecord]:
        """From the nodes of a runtime model; see the contract."""
        from edgekd.backends._openvino_layers import read

        return read(path, reading["nodes"])


class OpenVinoSession:
    """A compiled file."""

    def __init__(
        self, inner: Any, path: Path, inputs: Sequence[str], outputs: Sequence[str]
    ) -> None:
        self._inner: Any = inner
        self._request: Any = inner.create_infer_request()
        self._path = path
        self.inputs = tuple(_spec(p, inputs) for p in inner.inputs)
        self.outputs = tuple(_spec(p, outputs) for p in inner.outputs)

    def run(self, feeds: Feeds) -> dict[str, NDArray[np.generic]]:
        """All outputs by name.

        Raises:
            DataError: The feeds do not fit, or the model fails on them.
        """
        self._check(feeds)
        try:
            values = self._request.infer({i: feeds[s.name] for i, s in enumerate(self.inputs)})
        except Exception as e:  # pybind raises RuntimeError, TypeError and others
            raise DataError(f"{self._path} fails on these inputs.", got=first_line(e)) from e
        return {o.name: np.array(values[i]) for i, o in enumerate(self.outputs)}

    def bind(self, feeds: Feeds) -> Callable[[], object]:
        """One inference on fixed feeds, in a request of its own that shares their memory."""
        self.run(feeds)  # so that whatever is wrong with them is said here
        request = self._inner.create_infer_request()
        held = []
        for port, spec in zip(self._inner.inputs, self.inputs, strict=True):
            array = feeds[spec.name]
            flat = np.ascontiguousarray(array).reshape(array.shape)
            request.set_tensor(port, ov.Tensor(flat, shared_memory=flat.size > 0))
            held.append(flat)
        call = partial(request.infer)
        call.__dict__["held"] = held  # a tensor does not keep the memory that it shares alive
        return call

    def node_times_us(self) -> dict[str, float]:
        """Time of each node in the latest run; needs a model compiled with PERF_COUNT."""
        return {
            node.node_name: node.real_time.total_seconds() * 1e6
            for node in self._request.profiling_info
        }

    def close(self) -> None:
        """Free the session."""
        self._inner = self._request = None

    def __enter__(self) -> OpenVinoSession:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _check(self, feeds: Feeds) -> None:
        check_feeds(self.inputs, feeds, source=f"the feeds for {self._path.name}")


def properties(target: Target, threads: int) -> dict[str, Any]:
    """Properties for one stream of inferences; the precision is always explicit.

    Raises:
        RecipeError: An option of the target is one that its conditions decide.
    """
    for key in target.options:
        if key in _RESERVED:
            raise RecipeError(
                f"The target {target.name!r} sets {key} as an option.",
                expected="conditions.threads decides the threads; a session is one stream",
                todo="take the option out",
            )
    return {
        # left alone, a CPU that has bfloat16 computes float models in it
        "INFERENCE_PRECISION_HINT": "f32",
        **target.options,
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
    }


def device(target: Target) -> str:
    """OpenVINO's name of a target's processor.

    Raises:
        UnsupportedError: It is not in this machine, or has no driver.
    """
    present = ov.Core().available_devices
    if target.processor not in present:
        raise UnsupportedError(
            f"{NAME} does not find the target's processor here.",
            expected=f"processor: one of {', '.join(present)}",
            got=target.processor,
            todo="install its driver, or change the target",
        )
    return target.processor


def compiled(model: Path | bytes, path: Path, device: str, wanted: dict[str, Any]) -> Any:
    """A model compiled for one device, never split; `path` names it in errors.

    Raises:
        UnsupportedError: The runtime refuses the model or a property.
        DataError: The file is damaged.
    """
    core = ov.Core()
    try:
        if isinstance(model, bytes):
            return core.compile_model(core.read_model(model), device, wanted)
        return core.compile_model(str(model), device, wanted)
    except Exception as e:  # pybind raises RuntimeError, TypeError and others
        raise refusal(model, path, NAME, e) from e


def _spec(port: Any, names: Sequence[str]) -> TensorSpec:
    """A port by the name that the file gives it; a port may carry several."""
    name = next((n for n in names if n in port.names), port.any_name)
    shape = tuple(
        dim.get_length() if dim.is_static else None for dim in _dimensions(port.partial_shape)
    )
    return TensorSpec(name, np.dtype(port.element_type.to_dtype()).name, shape)


def _dimensions(shape: Any) -> list[Any]:
    return list(shape) if shape.rank.is_static else []
