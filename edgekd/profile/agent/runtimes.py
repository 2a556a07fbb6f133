"""The runtimes that a device may have, opened as edgekd's own backends open them."""

from __future__ import annotations

import os
import sys
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_FATAL = 4
_RUNS = 10


class RefusedError(Exception):
    """The device cannot do what was asked; `code` says of which kind the reason is."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code, self.text = code, text


class OnnxRuntime:
    """A session on one provider: one stream of inferences, inputs and outputs bound.

    Args:
        model: ``file``, ``processor``, ``threads``, ``options``, and the names of ``inputs`` and
            ``outputs``.
    """

    package = "onnxruntime"

    def __init__(self, model: Mapping[str, Any]) -> None:
        self._model = model
        self._session = self._load(self._options())

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """All outputs by name."""
        names = list(self._model["outputs"])
        return dict(zip(names, self._session.run(names, dict(feeds))))

    def bind(self, feeds: Mapping[str, Any]) -> Callable[[], object]:
        """One inference on fixed feeds, without converting them at each call."""
        self.run(feeds)
        binding = self._session.io_binding()
        for name, array in feeds.items():
            binding.bind_cpu_input(name, array)
        for name in self._model["outputs"]:
            binding.bind_output(name, "cpu")
        return partial(self._session.run_with_iobinding, binding)

    def reading(self, feeds: Mapping[str, Any], folder: Path) -> dict[str, bytes]:
        """The runtime's own trace of 11 runs, and the graph as it optimized it."""
        options = self._options()
        options.optimized_model_filepath = str(folder / "optimized.onnx")
        options.enable_profiling = True
        options.profile_file_prefix = str(folder / "trace")
        self._session = self._load(options)
        for _ in range(_RUNS + 1):
            self.run(feeds)
        trace = Path(self._session.end_profiling())
        return {
            "events": trace.read_bytes(),
            "graph": (folder / "optimized.onnx").read_bytes(),
        }

    def _load(self, options: Any) -> Any:
        import onnxruntime

        provider = "{}ExecutionProvider".format(self._model["processor"])
        present = onnxruntime.get_available_providers()
        if provider not in present:
            raise RefusedError("unsupported", f"no {provider}, only {', '.join(present)}")
        if provider != "CPUExecutionProvider":
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        path = str(self._model["file"])
        return onnxruntime.InferenceSession(path, options, providers=[provider])

    def _options(self) -> Any:
        import onnxruntime

        threads = int(self._model["threads"])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = _FATAL
        if threads > 1:
            options.add_session_config_entry("session.force_spinning_stop", "1")
        for key, value in self._model["options"].items():
            text = str(int(value)) if isinstance(value, bool) else str(value)
            options.add_session_config_entry(key, text)
        return options


class OpenVino:
    """A model compiled for one device, its tensors shared with the caller's arrays.

    Args:
        model: As for `OnnxRuntime`.
    """

    package = "openvino"

    def __init__(self, model: Mapping[str, Any]) -> None:
        self._model = model
        self._compile()

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """All outputs by name."""
        values = self._request.infer({i: feeds[n] for i, n in enumerate(self._inputs)})
        return {name: np.array(values[i]) for i, name in enumerate(self._outputs)}

    def bind(self, feeds: Mapping[str, Any]) -> Callable[[], object]:
        """One inference on fixed feeds, in a request of its own that shares their memory."""
        import openvino

        self.run(feeds)
        request = self._compiled.create_infer_request()
        for port, name in zip(self._compiled.inputs, self._inputs):
            array = feeds[name]
            request.set_tensor(port, openvino.Tensor(array, shared_memory=array.size > 0))
        call = partial(request.infer)
        call.__dict__["held"] = feeds  # a tensor does not keep the memory that it shares alive
        return call

    def reading(self, feeds: Mapping[str, Any], folder: Path) -> dict[str, bytes]:
        """The nodes of the compiled graph, and the mean time of each over 10 runs."""
        import json

        self._compile(PERF_COUNT=True)
        self.run(feeds)
        times: dict[str, float] = {}
        for _ in range(_RUNS):
            self.run(feeds)
            for node in self._request.profiling_info:
                taken_us = node.real_time.total_seconds() * 1e6 / _RUNS
                times[node.node_name] = times.get(node.node_name, 0.0) + taken_us
        nodes = [
            {
                "name": op.get_friendly_name(),
                "type": op.get_type_name(),
                "facts": {k: v.astype(str) for k, v in op.get_rt_info().items()},
                "inputs": [i.get_node().get_friendly_name() for i in op.input_values()],
                "users": [
                    t.get_node().get_friendly_name()
                    for o in op.outputs()
                    for t in o.get_target_inputs()
                ],
            }
            for op in self._compiled.get_runtime_model().get_ordered_ops()
        ]
        return {"nodes": json.dumps({"nodes": nodes, "times_us": times}).encode()}

    def _compile(self, **more: Any) -> None:
        import openvino

        model = self._model
        properties = {
            "INFERENCE_PRECISION_HINT": "f32",
            **model["options"],
            "INFERENCE_NUM_THREADS": int(model["threads"]),
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            **more,
        }
        core, device = openvino.Core(), model["processor"]
        self._compiled = core.compile_model(str(model["file"]), device, properties)
        self._request = self._compiled.create_infer_request()
        self._inputs = [_name(port, model["inputs"]) for port in self._compiled.inputs]
        self._outputs = [_name(port, model["outputs"]) for port in self._compiled.outputs]


def _name(port: Any, names: Any) -> str:
    """A port by the name that the file gives it; a port may carry several."""
    return next((n for n in names if n in port.names), None) or str(port.any_name)


RUNTIMES: dict[str, Any] = {"onnxruntime": OnnxRuntime, "openvino": OpenVino}


def version(backend: str) -> str | None:
    """Of the installed runtime, without its build number; None without one.

    Raises:
        RefusedError: No runtime of that name is known here.
    """
    if backend not in RUNTIMES:
        known = ", ".join(sorted(RUNTIMES))
        raise RefusedError("unsupported", f"the agent opens {known}, not {backend}")
    try:
        return metadata.version(RUNTIMES[backend].package).partition("-")[0]
    except metadata.PackageNotFoundError:
        return None


def load(backend: str) -> Any:
    """The runtime, imported without the reports that it would send to its maker.

    Raises:
        RefusedError: It is not installed, or cannot be imported.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("ORT_TELEMETRY_DISABLED", "1")
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    if version(backend) is None:
        raise RefusedError("missing", RUNTIMES[backend].package)
    try:
        __import__(RUNTIMES[backend].package)
    except ImportError as e:
        raise RefusedError("missing", f"{RUNTIMES[backend].package} ({e})") from e
    return RUNTIMES[backend]
