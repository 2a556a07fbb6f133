"""TensorRT-RTX: engines for GPUs that need not be here; built, not run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import onnx
import tensorrt_rtx as trt

from edgekd.backends._contract import BACKENDS
from edgekd.backends._onnx.file import check, check_one_file
from edgekd.backends._onnx.specs import check_fixed, input_specs
from edgekd.backends._refusal import refusal
from edgekd.backends._tensorrt.kernels import records, with_names
from edgekd.backends._tensorrt.rtx_layers import kernels
from edgekd.backends._tensorrt.rules import check_codes
from edgekd.core.config import nearest
from edgekd.core.errors import RecipeError, UnsupportedError
from edgekd.core.files import atomic_write

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from edgekd.backends._contract import Feeds, Session
    from edgekd.core.target import Target
    from edgekd.core.types import LayerRecord

NAME = "TensorRT-RTX"
SUFFIX = ".engine"
_OPTIONS = ("compute_capabilities", "tf32")


@BACKENDS.register
class TensorRtRtx:
    """`target.options`: the GPUs to build for, and whether float may be computed in TF32.

    ``compute_capabilities: 8.6 8.9`` names them; ``tf32: true`` allows 10-bit mantissas, which
    TensorRT would by itself.

    Two builds of one model differ in their bytes, so an engine's hash speaks for one build alone.
    """

    distribution: ClassVar[str] = "tensorrt-rtx"

    def version(self) -> str:
        """Version of the installed runtime."""
        return str(trt.__version__)

    def check_machine(self, target: Target) -> None:
        """Raise: an engine runs on a GPU that edgekd does not drive."""
        capabilities(target)
        raise _not_run(f"The target {target.name!r} cannot be measured.")

    def build(self, model: bytes, target: Target, out: Path) -> Path:
        """Write ``<out>.engine`` for the target's GPUs; see the contract. Needs no GPU."""
        path = out.with_name(out.name + SUFFIX)
        check_one_file(model, path)
        engine, _ = compiled(model, path, target)
        atomic_write(path, engine)
        return path

    def open(self, path: Path, target: Target, *, threads: int) -> Session:
        """Raise, with what is wrong about the file first."""
        if path.suffix != SUFFIX:
            check(path)
        raise _not_run(f"{path} cannot be run.")

    def layers(
        self, path: Path, target: Target, feeds: Feeds, *, threads: int
    ) -> Sequence[LayerRecord]:
        """Every kernel that an ONNX file is compiled to, without times; nothing is run.

        Raises:
            UnsupportedError: The file is an engine, which tells them on its GPU alone.
        """
        if path.suffix == SUFFIX:
            raise _not_run(f"The layers of the engine {path} cannot be read.")
        check(path)
        model = with_names(onnx.load(path))
        _, log = compiled(model.SerializeToString(), path, target)
        return records(kernels(log.layers, path), model)


class Log(trt.ILogger):  # type: ignore[misc]
    """Keeps what the builder says: its errors, and its list of layers."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.errors: list[str] = []
        self.layers = ""

    def log(self, severity: Any, text: str) -> None:
        """Called by the library."""
        if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
            self.errors.append(text)
        elif text.startswith("Layers:"):
            self.layers = text


def compiled(model: bytes, path: Path, target: Target) -> tuple[bytes, Log]:
    """An engine for the target's GPUs, and what was said while it was built.

    Args:
        model: Serialized ONNX in one piece.
        path: Names it in errors.
        target: Whose options are used.

    Raises:
        UnsupportedError: The model is one that cannot be built, or would be misread.
        RecipeError: An option of the target is wrong.
    """
    wanted = capabilities(target)
    log = Log()
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    try:
        proto = onnx.load_from_string(model)
        onnx.checker.check_model(proto)
    except Exception as e:  # the checker's and protobuf's own have no common base
        raise refusal(model, path, NAME, e) from e
    check_codes(proto, path, target, NAME)
    check_fixed(input_specs(proto, path), path)
    parser = trt.OnnxParser(network, log)
    if not parser.parse(model):
        errors = [parser.get_error(i) for i in range(parser.num_errors)]
        said = "; ".join(f"{e.node_name() or 'the graph'}: {_line(e.desc())}" for e in errors)
        raise refusal(model, path, NAME, RuntimeError(said))
    config = builder.create_builder_config()
    if not target.options.get("tf32", False):
        config.clear_flag(trt.BuilderFlag.TF32)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.num_compute_capabilities = len(wanted)
    for index, capability in enumerate(wanted):
        config.set_compute_capability(capability, index)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        said = _line(log.errors[-1]) if log.errors else "the builder gave no engine"
        raise refusal(model, path, NAME, RuntimeError(said))
    return bytes(engine), log


def capabilities(target: Target) -> list[Any]:
    """The GPUs that the target names, as the library calls them.

    Raises:
        RecipeError: None is named, or one that the library cannot build for.
    """
    for key in target.options:
        if key not in _OPTIONS:
            raise RecipeError(
                f"The target {target.name!r} has an unknown option{nearest(key, _OPTIONS)}",
                got=key,
            )
    known = {
        f"{name[2:-1]}.{name[-1]}": value
        for name, value in trt.ComputeCapability.__members__.items()
        if name.startswith("SM")
    }
    given = str(target.options.get("compute_capabilities", "")).split()
    wrong = [word for word in given if word not in known]
    if wrong or not given:
        raise RecipeError(
            f"The target {target.name!r} does not say for which GPUs to build.",
            expected=f"options.compute_capabilities: some of {' '.join(known)}",
            got=" ".join(wrong) or "none",
        )
    return [known[word] for word in given]


def _not_run(failed: str) -> UnsupportedError:
    return UnsupportedError(
        failed,
        expected=f"a backend that runs here; {NAME} runs on an NVIDIA RTX GPU",
        got=f"edgekd builds engines for {NAME} and does not run them",
        todo="time the engine on its GPU by NVIDIA's tools, or choose a target that is measured",
    )


def _line(text: str) -> str:
    """The first line that says what is wrong, without the place in the library's sources."""
    lines = [line for line in text.strip().splitlines() if not line.startswith("Invalid Node")]
    return (lines or [text])[0].partition(" In ")[0].rstrip("(. ")
