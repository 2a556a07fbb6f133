"""What a target can do, found by models of one layer that are run, or at least compiled."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edgekd.backends._contract import BACKENDS
from edgekd.backends._kernels import UNKNOWN_REASON
from edgekd.backends._onnx.specs import input_specs
from edgekd.backends._runtime import installed
from edgekd.core.config import Config
from edgekd.core.errors import DataError, DeviceError, MissingDependencyError, UnsupportedError
from edgekd.profile.inputs import make_feeds
from edgekd.profile.probe_models import PROBED, Granularity, probe_model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgekd.core.progress import Progress
    from edgekd.core.target import Target
    from edgekd.core.types import LayerRecord

Verdict = Literal[
    "int8 kernel", "int4 kernel", "int2 kernel", "float kernel", "storage only", "refused"
]

_WEIGHTED = ("conv 3x3", "depthwise conv 3x3", "linear", "linear, relu, linear")
_INT4 = ("matmul",)
_FEW_BITS: Literal[4] = 4
#: operators without weights -> what runtimes call their nodes; TensorRT generates a "kgen"
_OWN_NODES = {
    "add": frozenset({"Add", "Eltwise", "QLinearAdd", "XNNPACK ADD", "kgen"}),
    "global average pool": frozenset({
        "GlobalAveragePool", "Pooling", "QLinearGlobalAveragePool", "Reduce", "XNNPACK MEAN",
        "kgen",
    }),
    "max pool": frozenset({
        "MaxPool", "NhwcMaxPool", "Pooling", "XNNPACK MAX_POOL_2D", "maxpool",
    }),
}  # fmt: skip
#: OpenVINO's switch for compiling neighbouring nodes into one `Subgraph` kernel
SNIPPETS_OFF = {"SNIPPETS_MODE": "DISABLE"}


class ProbeRow(Config):
    """What one operator runs in.

    Attributes:
        op: The operator, one of `PROBED`.
        bits: Of its weights, or of its activations where it has no weights.
        granularity: Which weights share a scale; "-" where nothing does.
        stored: How the file holds weights of few bits: packed bytes that constant nodes unpack,
            or native ONNX integers; "-" for plain int8 or float ones.
        verdict: "storage only" says that weights are kept in fewer bits and computed in float.
        reason: Why it is not in an integer kernel, or what else was seen.
    """

    op: str
    bits: Literal[2, 4, 8, 32]
    granularity: str
    stored: Literal["packed", "native", "-"] = "-"
    verdict: Verdict
    reason: str = ""


class CheckUp(Config):
    """One target on this machine.

    Attributes:
        target: Its name.
        backend: Its runtime's name.
        version: Of the installed runtime; None where it is missing or too old.
        problem: Why it cannot be used; "" when it can.
        exit_code: Of that problem; 0 without one.
        rows: One per probed operator; none where the runtime is missing or too old.
    """

    target: str
    backend: str
    version: str | None
    problem: str = ""
    exit_code: int = 0
    rows: tuple[ProbeRow, ...] = ()


def runtime_problem(target: Target) -> CheckUp:
    """The check-up before any probe: the version, or what keeps the runtime from being used.

    Both where the runtime builds here and the device that it runs on is not.

    Raises:
        RecipeError: The target names no backend or no valid range of versions.
    """
    version = None
    try:
        backend, version = installed(target)
        backend.check_machine(target)
    except (DeviceError, MissingDependencyError, UnsupportedError) as e:
        return CheckUp(
            target=target.name,
            backend=target.backend,
            version=version,
            problem=e.message,
            exit_code=e.exit_code,
        )
    return CheckUp(target=target.name, backend=target.backend, version=version)


def probe(found: CheckUp, target: Target, progress: Progress) -> CheckUp:
    """Run every probe of a target, or where its device is not here, compile it.

    A target whose runtime refuses every one of them is not usable either.

    Args:
        found: From `runtime_problem`, with a version.
        target: The same target.
        progress: Gets a bar.
    """
    rows = []
    plan = cases(target)
    with progress.bar(f"probe {target.name}", total=len(plan)) as bar:
        for op, granularity in plan:
            rows.append(_row(op, granularity, target))
            bar.advance(note=op)
    if found.problem or any(row.verdict != "refused" for row in rows):
        return found.model_copy(update={"rows": tuple(rows)})
    error = UnsupportedError(
        f"The target {target.name!r} refuses every probe.",
        got=rows[0].reason,
        todo="look at the options in the target's file",
    )
    update = {"rows": tuple(rows), "problem": error.message, "exit_code": error.exit_code}
    return found.model_copy(update=update)


def cases(target: Target) -> list[tuple[str, Granularity | None]]:
    """Operators and granularities to probe; "per_block" stands for int4 weights alone."""
    integers: tuple[Granularity | None, ...] = ("per_tensor", "per_channel")
    weighted = integers if target.scheme is not None else (None,)
    return [
        *((op, granularity) for op in _WEIGHTED for granularity in weighted),
        *((op, None) for op in _OWN_NODES),
        *((op, "per_block") for op in _INT4),
    ]


def _row(op: str, granularity: Granularity | None, target: Target) -> ProbeRow:
    whole: Literal[8, 32] = 8 if target.scheme is not None else 32
    bits: Literal[4, 8, 32] = _FEW_BITS if granularity == "per_block" else whole
    verdict, reason = _tried(op, granularity, bits, target)
    return ProbeRow(
        op=op,
        bits=bits,
        granularity=granularity or "-",
        stored="native" if bits == _FEW_BITS else "-",
        verdict=verdict,
        reason=reason,
    )


def _tried(
    op: str, granularity: Granularity | None, bits: int, target: Target
) -> tuple[Verdict, str]:
    try:
        layers = _layers(op, granularity, target)
    except (UnsupportedError, DataError) as e:
        return "refused", e.got or e.failed
    verdict, reason = judge(op, bits, layers)
    merged = any(layer.role == "matmul" and layer.op == "Subgraph" for layer in layers)
    if bits == 8 and verdict == "float kernel" and merged:
        return verdict, f"{reason}; {_without_snippets(op, granularity, target)}"
    return verdict, reason


def _without_snippets(op: str, granularity: Granularity | None, target: Target) -> str:
    """What the same model runs in when the runtime may not merge its nodes."""
    changed = target.model_copy(update={"options": {**target.options, **SNIPPETS_OFF}})
    option = ", ".join(f"{key}: {value}" for key, value in SNIPPETS_OFF.items())
    try:
        verdict, _ = judge(op, 8, _layers(op, granularity, changed))
    except (UnsupportedError, DataError) as e:
        return f"with {option} in the target's options: refused ({e.got or e.failed})"
    return f"with {option} in the target's options: {verdict}"


def _layers(op: str, granularity: Granularity | None, target: Target) -> Sequence[LayerRecord]:
    return layers_of(probe_model(op, target.scheme, granularity), target)


def layers_of(model: bytes, target: Target) -> Sequence[LayerRecord]:
    """Every node of a small model as the target's runtime runs it, or compiles it.

    Raises:
        UnsupportedError, DataError: The runtime refuses it.
    """
    import onnx

    backend = BACKENDS.get(target.backend)()
    threads = target.conditions.threads
    with tempfile.TemporaryDirectory(prefix="edgekd-probe-") as folder:
        path = Path(folder) / "probe.onnx"
        path.write_bytes(model)
        specs = input_specs(onnx.load(path), path)  # not the session's: opening needs the device
        feeds = make_feeds(specs, {}, seed=0, count=1)[0]
        return backend.layers(path, target, feeds, threads=threads)


def judge(op: str, bits: int, layers: Sequence[LayerRecord]) -> tuple[Verdict, str]:
    """What the layers of a probe say about its operator.

    Args:
        op: One of `PROBED`.
        bits: 4, 8 or 32.
        layers: Every node that ran.

    Returns:
        The verdict, and why it is not an integer kernel or what else was seen.
    """
    if op not in PROBED:
        raise ValueError(f"{op!r} is not probed")
    matmuls = [layer for layer in layers if layer.role == "matmul"]
    own = [layer for layer in layers if layer.op in _OWN_NODES.get(op, ())]
    judged = own if op in _OWN_NODES and own else matmuls
    beside = "" if judged is own or op not in _OWN_NODES else _beside(judged)
    if not judged:
        return "float kernel", f"no node of its own; what ran: {_names(layers)}"
    if bits == 32:
        return "float kernel", beside
    if bits == _FEW_BITS:
        return judge_stored(layers)
    floats = [layer for layer in judged if layer.precision != "int8"]
    if floats:
        return "float kernel", _why(floats[0])
    standing = sum(layer.role == "requantize" for layer in layers)
    notes = [beside, f"{standing} Q/DQ nodes left standing" if standing else ""]
    return "int8 kernel", "; ".join(filter(None, notes))


def judge_stored(layers: Sequence[LayerRecord]) -> tuple[Verdict, str]:
    """What the layers of a probe say about weights that a file holds in few bits.

    Args:
        layers: Every node that ran.

    Returns:
        The verdict, and what was seen.
    """
    matmuls = [layer for layer in layers if layer.role == "matmul"]
    if not matmuls:
        return "float kernel", f"no node of its own; what ran: {_names(layers)}"
    first = matmuls[0]
    if first.precision == "int4" or first.op == "MatMulNBits":
        return "int4 kernel", f"{first.op}, computed in {first.precision}"
    if all(layer.precision == "int8" for layer in matmuls):
        return "int8 kernel", f"{first.op}; unpacked before any inference"
    decoded = any(layer.op == "DequantizeLinear" for layer in layers)
    when = "; decoded at every inference" if decoded else ""
    return "storage only", f"{first.op} in {first.precision}{when}"


def _why(layer: LayerRecord) -> str:
    if layer.op == "Subgraph":
        return f"merged into a Subgraph, which the runtime reports as {layer.precision}"
    return layer.reason or f"{layer.op} in {layer.precision}, {UNKNOWN_REASON}"


def _beside(matmuls: Sequence[LayerRecord]) -> str:
    return f"no node of its own beside {_names(matmuls)}"


def _names(layers: Sequence[LayerRecord]) -> str:
    return ", ".join(dict.fromkeys(layer.op for layer in layers)) or "nothing"
