"""The JSON that trtexec writes: times, layers and outputs, checked before anything is believed.

What stands in it comes from another program on another machine: a report that is too large, cut
off, or says something impossible is an error and never a figure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from edgekd.backends._tensorrt.kernels import Kernel
from edgekd.core.errors import DeviceError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from edgekd.core.types import TensorSpec

_MAX_BYTES = 64 << 20
_MAX_MS = 3_600_000.0
_NS_PER_MS = 1e6
_US_PER_MS = 1e3

_Ms = Annotated[float, Field(ge=0, le=_MAX_MS, allow_inf_nan=False)]


class _Report(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


class _Inference(_Report):
    """One of ``--exportTimes``."""

    latency_ms: Annotated[_Ms, Field(gt=0, alias="latencyMs")]


class _Count(_Report):
    """The first of ``--exportProfile``."""

    count: Annotated[int, Field(gt=0)]


class _LayerTime(_Report):
    """One of ``--exportProfile``."""

    name: str
    average_ms: Annotated[_Ms, Field(alias="averageMs")]


class _Tensor(_Report):
    name: Annotated[str, Field(alias="Name")]
    format: Annotated[str, Field(alias="Format/Datatype")] = ""
    datatype: Annotated[str, Field(alias="Datatype")] = ""

    def text(self) -> str:
        return self.format or self.datatype


class _Weights(_Report):
    type: Annotated[str, Field(alias="Type")]


class _Layer(_Report):
    """One of the ``Layers`` of ``--exportLayerInfo``, at detailed verbosity."""

    name: Annotated[str, Field(alias="Name")]
    op: Annotated[str, Field(alias="LayerType", min_length=1)]
    parameters: Annotated[str, Field(alias="ParameterType")] = ""
    inputs: Annotated[list[_Tensor], Field(alias="Inputs")] = []
    outputs: Annotated[list[_Tensor], Field(alias="Outputs")] = []
    weights: Annotated[_Weights | None, Field(alias="Weights")] = None
    metadata: Annotated[str, Field(alias="Metadata")] = ""


class _Engine(_Report):
    layers: Annotated[list[_Layer], Field(alias="Layers", min_length=1)]
    bindings: Annotated[list[str], Field(alias="Bindings")] = []


class _Output(_Report):
    """One of ``--exportOutput``."""

    name: str
    dimensions: Annotated[str, Field(pattern=r"^\d*(x\d+)*$")]
    values: list[int | float]


_TIMES = TypeAdapter(list[_Inference])
_PROFILE = TypeAdapter(Annotated[list[_Count | _LayerTime], Field(min_length=1)])
_ENGINE = TypeAdapter(_Engine)
_OUTPUTS = TypeAdapter(list[_Output])


def samples_ns(path: Path, *, at_least: int) -> list[int]:
    """Latency of every timed inference in order, in ns, from ``--exportTimes``.

    Args:
        path: Of the report.
        at_least: How many were asked for.

    Raises:
        DeviceError: The report is not one, or holds fewer.
    """
    found = [round(one.latency_ms * _NS_PER_MS) for one in _read(path, _TIMES)]
    if len(found) < at_least:
        raise _unusable(path, f"{at_least} inferences", f"{len(found)}")
    return found


def kernels(info: Path, profile: Path) -> list[Kernel]:
    """The layers of an engine from ``--exportLayerInfo``, with their mean times.

    Args:
        info: Of an engine built with detailed verbosity.
        profile: ``--exportProfile`` of the same engine.

    Raises:
        DeviceError: A report is not one, or they speak of different engines.
    """
    engine: _Engine = _read(info, _ENGINE)
    _, *timed = _read(profile, _PROFILE)
    if not all(isinstance(one, _LayerTime) for one in timed):
        raise _unusable(profile, "one count and then layers", "another count")
    times: dict[str, float] = {}
    for one in timed:
        times[one.name] = times.get(one.name, 0.0) + one.average_ms * _US_PER_MS
    known = {layer.name for layer in engine.layers}
    strangers = [name for name in times if name not in known]
    if strangers:
        raise _unusable(profile, f"layers of {info.name}", repr(strangers[0]))
    if len(known) != len(engine.layers):
        raise _unusable(info, "layers with names of their own", "a name twice")
    outside = set(engine.bindings)
    return [_kernel(layer, outside, times.get(layer.name)) for layer in engine.layers]


def outputs(path: Path, specs: Sequence[TensorSpec]) -> dict[str, NDArray[np.generic]]:
    """Outputs by name from ``--exportOutput``; it prints six digits of each value.

    Raises:
        DeviceError: The report is not one, or lacks an output.
    """
    found: dict[str, _Output] = {one.name: one for one in _read(path, _OUTPUTS)}
    arrays = {}
    for spec in specs:
        one = found.get(spec.name)
        if one is None:
            raise _unusable(path, f"the output {spec.name!r}", ", ".join(found) or "none")
        shape = [int(d) for d in one.dimensions.split("x") if d]
        array = np.asarray(one.values, dtype=spec.dtype)
        if array.size != int(np.prod(shape)):
            raise _unusable(path, f"{one.dimensions} values of {spec.name!r}", str(array.size))
        arrays[spec.name] = array.reshape(shape)
    return arrays


def _kernel(layer: _Layer, outside: set[str], time_us: float | None) -> Kernel:
    return Kernel(
        name=layer.name,
        op=f"{layer.op} {layer.parameters}".strip(),
        takes=tuple(tensor.text() for tensor in layer.inputs),
        makes=tuple(tensor.text() for tensor in layer.outputs),
        weights=layer.weights.type if layer.weights else "",
        metadata=layer.metadata,
        is_boundary=any(t.name in outside for t in (*layer.inputs, *layer.outputs)),
        time_us=time_us,
    )


def _read(path: Path, form: TypeAdapter[Any]) -> Any:
    try:
        size = path.stat().st_size
        if size > _MAX_BYTES:
            raise _unusable(path, f"at most {_MAX_BYTES} bytes", f"{size} bytes")
        return form.validate_json(path.read_bytes())
    except OSError as e:
        raise _unusable(path, "a file", str(e.strerror)) from e
    except ValidationError as e:
        first = e.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        got = f"{where}: {first['msg']}" if where else first["msg"]
        raise _unusable(path, "JSON in the form that trtexec documents", got) from e


def _unusable(path: Path, expected: str, got: str) -> DeviceError:
    return DeviceError(
        f"The report {path.name} of trtexec cannot be used.",
        expected=expected,
        got=got,
        todo="see that the disk is not full and that nothing ended trtexec, and measure again",
    )
