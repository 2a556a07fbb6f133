"""A target is data: one YAML file per device and runtime, shipped or the user's own."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from edgekd.core.config import Config, load_yaml, nearest, validate
from edgekd.core.errors import RecipeError
from edgekd.core.types import Scheme


class TargetConditions(Config):
    """What a measurement on this target must be made under."""

    threads: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=1)] = 1
    power_mode: str = "as found"


class Tolerance(Config):
    """How far the artifact may be from the fake-quant student before parity fails.

    Attributes:
        mean_abs: Mean absolute logit difference, as a fraction of the logits' standard deviation.
        agreement: Fraction of test samples with the same decision.
    """

    mean_abs: Annotated[float, Field(gt=0)]
    agreement: Annotated[float, Field(gt=0, le=1)]


def _with_name(spec: Any) -> Any:
    """``ssh`` is short for ``{name: ssh}``."""
    return {"name": spec} if isinstance(spec, str) else spec


def _has_name(spec: dict[str, Any]) -> dict[str, Any]:
    if "name" not in spec:
        raise ValueError("a transport needs its name, e.g. {name: ssh, host: 192.168.1.7}")
    return spec


#: a transport's name and its settings, which the transport itself checks
TransportSpec = Annotated[
    dict[str, str | int | float | bool | None],
    BeforeValidator(_with_name),
    AfterValidator(_has_name),
]


class Target(Config):
    """A device as edgekd sees it.

    Attributes:
        name: Also its file's.
        description: In a few words.
        backend: The runtime.
        runtime: Versions of it that will do.
        precision: What artifacts for it are made of.
        scheme: How integers are stored; None for float.
        opset: ONNX opset of float files.
        transport: How it is reached: ``local``, or a mapping with a name and settings.
        processor: What the runtime computes on: CPU; GPU or NPU as OpenVINO names them; for ONNX
            Runtime the name of an execution provider without those words (CUDA, XNNPACK).
        conditions: What a measurement must be made under.
        tolerance: How far an artifact may be from the student it is made from.
        options: Of the runtime.
    """

    name: str
    description: str
    backend: str
    runtime: str
    precision: Literal["float32", "int8"]
    scheme: Scheme | None = None
    opset: Annotated[int, Field(ge=13, le=25)] = 20
    transport: TransportSpec = Field(default="local", validate_default=True)
    processor: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_.:]{0,31}$")] = "CPU"
    conditions: TargetConditions
    tolerance: Tolerance
    options: dict[str, str | int | float | bool] = {}

    def on(self, cpu_flags: Collection[str]) -> Target:
        """The target as a CPU with these features can honour it."""
        if self.scheme is None:
            return self
        return self.model_copy(update={"scheme": self.scheme.on(cpu_flags)})

    @model_validator(mode="after")
    def _scheme_for_integers(self) -> Target:
        if (self.precision == "int8") != (self.scheme is not None):
            raise ValueError("an int8 target needs a `scheme`, a float32 target has none")
        return self


def shipped_folder(kind: Literal["targets", "profiles"]) -> Path:
    """The folder that came with edgekd: inside the wheel, or the checkout's own."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "_shipped" / kind
    return inside if inside.is_dir() else package.parent / kind


def target_names() -> list[str]:
    """Names of the shipped targets, sorted."""
    return sorted(p.stem for p in shipped_folder("targets").glob("*.yaml"))


def load_target(name_or_path: str) -> Target:
    """A shipped target by name, or the user's own by the path of its YAML file.

    Raises:
        RecipeError: No such target, or its file is not valid.
    """
    if name_or_path.endswith((".yaml", ".yml")) or "/" in name_or_path:
        path = Path(name_or_path)
    else:
        if name_or_path not in target_names():
            raise RecipeError(
                f"No target named {name_or_path!r}{nearest(name_or_path, target_names())}"
            )
        path = shipped_folder("targets") / f"{name_or_path}.yaml"
    target = validate(Target, load_yaml(path), source=str(path))
    if target.name != path.stem:
        raise RecipeError(
            f"{path} carries another target's name.",
            expected=f"name: {path.stem}",
            got=f"name: {target.name}",
        )
    return target
