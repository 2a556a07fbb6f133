"""What trtexec is called with for one ONNX file, and what its reports then say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx

from edgekd.backends._contract import Job
from edgekd.backends._onnx.specs import check_fixed, input_specs, output_specs
from edgekd.backends._refusal import refusal
from edgekd.backends._tensorrt import trtexec_arguments as arguments
from edgekd.backends._tensorrt import trtexec_reports as reports
from edgekd.backends._tensorrt.kernels import records, with_names
from edgekd.backends._tensorrt.rules import check_codes

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from edgekd.core.target import Target
    from edgekd.core.types import LayerRecord

NAME = "TensorRT"
WARM_UP_MS = 200
_ENGINE, _MODEL = "model.engine", "model.onnx"
_LAYER_RUNS = 10


class TrtexecJobs:
    """One file under a target's switches.

    Args:
        source: The file, or its content where it is not written yet.
        path: Its name, for errors.
        target: Whose options say what a latency is.
        major: Of TensorRT's version.

    Raises:
        UnsupportedError, DataError: The file is none that TensorRT would read as it is meant.
        RecipeError: The target's options leave something open.
    """

    model_file, result = _MODEL, _ENGINE

    def __init__(self, source: Path | bytes, path: Path, target: Target, *, major: int) -> None:
        proto = _loaded(source, path)
        self.inputs, self.outputs = input_specs(proto, path), output_specs(proto, path)
        check_codes(proto, path, target, NAME)
        check_fixed(self.inputs, path)
        self._proto = with_names(proto)
        self._major, self._switches = major, arguments.Switches.of(target)
        self.files = {spec.name: f"input-{i}.bin" for i, spec in enumerate(self.inputs)}

    def model(self) -> bytes:
        """What the engine is built of: the file in one piece, every node with a name."""
        return bytes(self._proto.SerializeToString())

    def build(self) -> list[str]:
        """Make the engine."""
        return arguments.build_arguments(
            _MODEL, _ENGINE, major=self._major, switches=self._switches
        )

    def run(self) -> Job:
        """One inference."""
        made = arguments.run_arguments(_ENGINE, self.files, "outputs.json", **self._how())
        return Job(made, ("outputs.json",))

    def time(self, runs: int, *, warm_up_ms: int = WARM_UP_MS) -> Job:
        """So many inferences, one request at a time."""
        made = arguments.time_arguments(
            _ENGINE, self.files, "times.json", runs=runs, warm_up_ms=warm_up_ms, **self._how()
        )
        return Job(made, ("times.json",))

    def explain(self) -> Job:
        """Time every layer."""
        names = ("profile.json", "layers.json")
        made = arguments.profile_arguments(
            _ENGINE, self.files, *names, runs=_LAYER_RUNS, **self._how()
        )
        return Job(made, names)

    def read_run(self, folder: Path) -> dict[str, NDArray[np.generic]]:
        """All outputs by name, with the six digits that trtexec prints."""
        return reports.outputs(folder / "outputs.json", self.outputs)

    def read_times(self, folder: Path, *, at_least: int) -> list[int]:
        """Latencies in ns by CUDA's events.

        trtexec keeps the ms since its start in float32, which is 1 us coarse after 8 s: many short
        calls say more than a long one.
        """
        return reports.samples_ns(folder / "times.json", at_least=at_least)

    def read_layers(self, folder: Path) -> list[LayerRecord]:
        """Every layer of the engine in order."""
        found = reports.kernels(folder / "layers.json", folder / "profile.json")
        return records(found, self._proto)

    def _how(self) -> dict[str, Any]:
        return {"major": self._major, "switches": self._switches}


def _loaded(model: Path | bytes, path: Path) -> Any:
    """The file with its weights, checked.

    Raises:
        UnsupportedError, DataError: It is not one.
    """
    try:
        proto = onnx.load_from_string(model) if isinstance(model, bytes) else onnx.load(model)
        onnx.checker.check_model(proto)
    except Exception as e:  # the checker's and protobuf's own have no common base
        raise refusal(model, path, NAME, e) from e
    return proto
