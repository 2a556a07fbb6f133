"""The parity ladder: the same real inputs through every form of the student, rung by rung."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from edgekd.core.errors import ParityError
from edgekd.export.onnx_file import INPUT, OUTPUT, with_taps

if TYPE_CHECKING:
    from edgekd.backends._contract import Backend, Feeds
    from edgekd.core.target import Target, Tolerance

Floats = NDArray[np.float32]
Taps = Mapping[str, Floats]
RunFile = Callable[[Path, "Sequence[Feeds]"], Sequence[Mapping[str, NDArray[np.generic]]]]
_BLAME_SAMPLES = 8


class Metric(Protocol):
    """What a task must bring: a decision and a score."""

    def decide(self, logits: Floats) -> NDArray[np.int64]:
        """(N, C) -> (N,)."""

    def score(self, logits: Floats, labels: NDArray[np.int64]) -> float:
        """The task's metric."""


@dataclass(frozen=True, slots=True)
class Form:
    """One form of the student.

    Attributes:
        name: For the report.
        run: Inputs (N, …) -> logits (N, C).
        taps: Inputs -> named activations in execution order; used only to find a culprit.
        tolerance: How far from `against` it may be; None only reports.
        samples: At most this many samples (a slow evaluator).
    """

    name: str
    run: Callable[[Floats], Floats]
    taps: Callable[[Floats], Taps] | None = None
    tolerance: Tolerance | None = None
    samples: int | None = None


@dataclass(frozen=True, slots=True)
class RungResult:
    """One rung against the rung it must agree with.

    Attributes:
        name: Of the form.
        against: Of the form it is compared with; None for the first.
        max_abs: Largest absolute logit difference.
        mean_abs: Mean absolute logit difference.
        agreement: Fraction of samples with the same decision.
        score: Task metric on these samples.
        n: Samples compared.
        ok: Within tolerance; None where none applies.
    """

    name: str
    against: str | None
    max_abs: float | None
    mean_abs: float | None
    agreement: float | None
    score: float
    n: int
    ok: bool | None


def climb(
    forms: Sequence[Form],
    inputs: Floats,
    labels: NDArray[np.int64],
    metric: Metric,
    *,
    anchor: str,
) -> tuple[RungResult, ...]:
    """Run every form and compare it with the anchor (forms before the anchor: with the first).

    Args:
        forms: From the trained model to the runtime, in order.
        inputs: Real samples (N, …).
        labels: (N,).
        metric: The task.
        anchor: Name of the form that a file must reproduce: the fake-quant student, or the float
            student for a float target.

    Raises:
        ParityError: At the first rung out of tolerance, naming the first layer that differs.
    """
    rungs: list[RungResult] = []
    outputs: dict[str, Floats] = {}
    reference: Form | None = None
    for form in forms:
        n = min(form.samples or len(inputs), len(inputs))
        logits = outputs[form.name] = form.run(inputs[:n])
        score = metric.score(logits, labels[:n])
        if reference is None:
            rungs.append(RungResult(form.name, None, None, None, None, score, n, None))
        else:
            expected = outputs[reference.name][:n]
            rung = _compare(form, reference, logits, expected, score, metric)
            rungs.append(rung)
            if rung.ok is False:
                raise _broken(form, reference, rung, inputs[:_BLAME_SAMPLES])
        if reference is None or form.name == anchor:
            reference = form
    return tuple(rungs)


def reference_form(model: bytes, *, samples: int, tolerance: Tolerance) -> Form:
    """The file as the ONNX standard's own evaluator reads it, on a few samples (it is slow)."""

    def evaluate(proto_bytes: bytes, inputs: Floats) -> list[list[Floats]]:
        import onnx
        from onnx.reference import ReferenceEvaluator

        proto = onnx.load_from_string(proto_bytes)
        size = proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value or len(inputs)
        evaluator = ReferenceEvaluator(proto)
        return [evaluator.run(None, {INPUT: batch}) for batch in _batches(inputs, size)]

    def run(inputs: Floats) -> Floats:
        return np.concatenate([out[0] for out in evaluate(model, inputs)])[: len(inputs)]

    def taps(inputs: Floats) -> Taps:
        tapped, names = with_taps(model)
        outs = evaluate(tapped, inputs)
        return {
            n: np.concatenate([out[i + 1] for out in outs])[: len(inputs)]
            for i, n in enumerate(names)
        }

    return Form("ONNX reference", run, taps, tolerance, samples)


def runtime_form(
    backend: Backend, path: Path, model: bytes, target: Target, *, run: RunFile
) -> Form:
    """The artifact in its runtime, under the target's conditions.

    Args:
        backend: Builds the file that shows a culprit.
        path: The artifact.
        model: The ONNX model it was built from.
        target: Whose conditions.
        run: Runs a file on the target's device; all outputs of every inference.
    """
    size = target.conditions.batch_size

    def outputs(file: Path, inputs: Floats) -> dict[str, Floats]:
        parts = run(file, [{INPUT: batch} for batch in _batches(inputs, size)])
        return {
            key: np.concatenate([np.asarray(p[key], np.float32) for p in parts])[: len(inputs)]
            for key in parts[0]
        }

    def taps(inputs: Floats) -> Taps:
        tapped, names = with_taps(model)
        with tempfile.TemporaryDirectory() as folder:
            built = backend.build(tapped, target, Path(folder) / "tapped")
            values = list(outputs(built, inputs).values())
        return dict(zip(names, values[1:], strict=True))

    return Form(target.name, lambda inputs: outputs(path, inputs)[OUTPUT], taps, target.tolerance)


def first_difference(expected: Taps, got: Taps, *, mean_abs: float) -> str | None:
    """The first activation whose mean difference exceeds `mean_abs` of its own spread."""
    for name, value in expected.items():
        if name not in got or got[name].shape != value.shape:
            continue
        spread = float(value.std()) or 1.0
        if float(np.abs(got[name] - value).mean()) > mean_abs * spread:
            return name
    return None


def _compare(
    form: Form, reference: Form, logits: Floats, expected: Floats, score: float, metric: Metric
) -> RungResult:
    difference = np.abs(logits - expected)
    agreement = float((metric.decide(logits) == metric.decide(expected)).mean())
    mean_abs = float(difference.mean())
    ok = None
    if form.tolerance is not None:
        spread = float(expected.std()) or 1.0
        near = mean_abs <= form.tolerance.mean_abs * spread
        # on few samples one flipped decision must not outweigh the tolerance's fraction
        flips = round((1 - agreement) * len(logits))
        allowed = max(int((1 - form.tolerance.agreement) * len(logits)), 1)
        ok = bool(np.isfinite(mean_abs) and near and flips <= allowed)
    return RungResult(
        name=form.name,
        against=reference.name,
        max_abs=float(difference.max()),
        mean_abs=mean_abs,
        agreement=agreement,
        score=score,
        n=len(logits),
        ok=ok,
    )


def _broken(form: Form, reference: Form, rung: RungResult, inputs: Floats) -> ParityError:
    layer = None
    if form.taps is not None and reference.taps is not None and form.tolerance is not None:
        layer = first_difference(
            reference.taps(inputs), form.taps(inputs), mean_abs=form.tolerance.mean_abs
        )
    assert form.tolerance is not None
    return ParityError(
        f"Parity breaks at the rung {form.name!r}: it computes something else than "
        f"{reference.name!r}.",
        expected=f"mean difference within {form.tolerance.mean_abs:g} of the logits' spread and "
        f"at least {form.tolerance.agreement:.1%} equal decisions",
        got=f"mean difference {rung.mean_abs:.4g}, largest {rung.max_abs:.4g}, "
        f"{rung.agreement:.2%} equal decisions on {rung.n} samples",
        todo=f"the first layer that differs is {layer!r}"
        if layer
        else "all activations on a grid agree; look at the last layer",
    )


def _batches(inputs: Floats, size: int) -> list[Floats]:
    """Batches of exactly `size`; the last one repeats its last sample (artifacts are static)."""
    missing = -len(inputs) % size
    if missing:
        inputs = np.concatenate([inputs, np.repeat(inputs[-1:], missing, axis=0)])
    return [inputs[i : i + size] for i in range(0, len(inputs), size)]
