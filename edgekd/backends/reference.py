"""The ONNX standard's own evaluator in numpy: slow, obvious, on any machine.

It says what a file computes; its times are real, and they are numpy's.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator
from threadpoolctl import ThreadpoolController

from edgekd.backends._contract import BACKENDS
from edgekd.backends._feeds import check_feeds
from edgekd.backends._onnx.file import check, check_one_file
from edgekd.backends._onnx.qdq import MATMULS, QDQ, FileGraph
from edgekd.backends._onnx.specs import input_specs, output_specs
from edgekd.backends._refusal import first_line, refusal
from edgekd.core.errors import DataError, EdgekdError, RecipeError
from edgekd.core.files import atomic_write
from edgekd.core.types import LayerRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from edgekd.backends._contract import Feeds
    from edgekd.core.target import Target
    from edgekd.core.types import Precision, Role

NAME = "ONNX's reference evaluator"
_NO_KERNEL = "numpy has no int8 kernels"
_PRECISIONS: dict[str, Precision] = {"float16": "float16", "float32": "float32"}


@BACKENDS.register
class Reference:
    """It has no options."""

    distribution: ClassVar[str] = "onnx"

    def version(self) -> str:
        """Version of the `onnx` package."""
        return str(onnx.__version__)

    def check_machine(self, target: Target) -> None:
        """Any machine will do."""

    def build(self, model: bytes, target: Target, out: Path) -> Path:
        """Write ``<out>.onnx``, after the evaluator knows all of its operators."""
        path = out.with_name(out.name + ".onnx")
        check_one_file(model, path)
        _open(model, path, target, target.conditions.threads)
        atomic_write(path, model)
        return path

    def open(self, path: Path, target: Target, *, threads: int) -> ReferenceSession:
        """Load an ONNX file; see the contract."""
        check(path)
        return _open(path, path, target, threads)

    def layers(
        self, path: Path, target: Target, feeds: Feeds, *, threads: int
    ) -> Sequence[LayerRecord]:
        """Every node of the file, each timed once in an evaluator of its own."""
        with self.open(path, target, threads=threads) as session:
            return session.layers(feeds)


class ReferenceSession:
    """A loaded file."""

    def __init__(self, model: onnx.ModelProto, path: Path, threads: int) -> None:
        self._model, self._path, self._threads = model, path, threads
        self._pools = ThreadpoolController()
        self._evaluator: Any = ReferenceEvaluator(model)
        self.inputs = input_specs(model, path)
        self.outputs = output_specs(model, path)

    def run(self, feeds: Feeds) -> dict[str, NDArray[np.generic]]:
        """All outputs by name.

        Raises:
            DataError: The feeds do not fit, or the model fails on them.
        """
        values = self._values(feeds)
        return {o.name: np.asarray(values[o.name]) for o in self.outputs}

    def bind(self, feeds: Feeds) -> Callable[[], object]:
        """One inference on fixed feeds."""
        self.run(feeds)  # so that whatever is wrong with them is said here
        fixed = dict(feeds)
        return lambda: self._call(None, fixed)

    def layers(self, feeds: Feeds) -> list[LayerRecord]:
        """Every node of the main graph in order."""
        values, source = self._values(feeds), FileGraph(self._model)
        outer = {i.name for i in (*self._model.graph.input, *self._model.graph.initializer)}
        outer |= {o.name for o in self._model.graph.output}
        return [
            _record(name, node, source, outer, values, self._time_us(node, values))
            for name, node in _named(self._model.graph)
        ]

    def close(self) -> None:
        """Free the session."""
        self._evaluator = None

    def __enter__(self) -> ReferenceSession:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _call(self, *args: Any, **kwargs: Any) -> Any:
        with self._pools.limit(limits=self._threads, user_api="blas"):
            return self._evaluator.run(*args, **kwargs)

    def _values(self, feeds: Feeds) -> dict[str, Any]:
        """Every tensor of the main graph by name."""
        check_feeds(self.inputs, feeds, source=f"the feeds for {self._path.name}")
        try:
            values: dict[str, Any] = self._call(None, dict(feeds), intermediate=True)
        except Exception as e:  # each operator raises what numpy raises
            raise DataError(f"{self._path} fails on these inputs.", got=first_line(e)) from e
        return values

    def _time_us(self, node: Any, values: dict[str, Any]) -> float:
        """Time of one node, as the only one of a model that is fed all it may look at."""
        feeds = {name: values[name] for name in _reads(node) if values.get(name) is not None}
        graph = onnx.helper.make_graph(
            [node],
            "one",
            [onnx.helper.make_empty_tensor_value_info(name) for name in feeds],
            [onnx.helper.make_empty_tensor_value_info(name) for name in node.output if name],
        )
        alone = onnx.helper.make_model(
            graph, opset_imports=self._model.opset_import, functions=self._model.functions
        )
        evaluator = ReferenceEvaluator(alone)
        with self._pools.limit(limits=self._threads, user_api="blas"):
            start = time.perf_counter_ns()
            evaluator.run(None, feeds)
            return (time.perf_counter_ns() - start) / 1e3


def _open(model: Path | bytes, path: Path, target: Target, threads: int) -> ReferenceSession:
    if target.options:
        raise RecipeError(
            f"The target {target.name!r} has options, which {NAME} has not.",
            got=", ".join(target.options),
            todo="take the options out",
        )
    try:
        proto = onnx.load_from_string(model) if isinstance(model, bytes) else onnx.load(model)
        return ReferenceSession(proto, path, threads)
    except EdgekdError:
        raise
    except Exception as e:  # protobuf, numpy and the evaluator raise what they like
        raise refusal(model, path, NAME, e) from e


def _named(graph: Any) -> Iterator[tuple[str, Any]]:
    """Nodes with names of their own; those without are called after what they make."""
    taken: set[str] = set()
    for node in graph.node:
        name = node.name if node.name not in {"", *taken} else next(filter(None, node.output), "")
        taken.add(name)
        yield name, node


def _reads(node: Any) -> list[str]:
    """Names of its inputs, and of those of the nodes in its branches and loops."""
    names = list(node.input)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            names += [name for inner in graph.node for name in _reads(inner)]
    return list(dict.fromkeys(filter(None, names)))


def _record(
    name: str,
    node: Any,
    source: FileGraph,
    outer: set[str],
    values: dict[str, Any],
    time_us: float,
) -> LayerRecord:
    op = node.op_type
    made = np.asarray(values.get(next(filter(None, node.output), ""))).dtype.name
    precision = _PRECISIONS.get(made, "other")
    if op in MATMULS:
        reason = source.why_float(node, strict=False) or _NO_KERNEL
        return LayerRecord(name, op, "matmul", precision, time_us, reason)
    inside = op in QDQ and not outer & {node.input[0], *node.output}
    role: Role = "requantize" if inside else "other"
    return LayerRecord(name, op, role, precision, time_us)
