"""What a target runs weights of few bits in, written to a file as a student's would be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edgekd.core.errors import DataError, UnsupportedError
from edgekd.core.types import Affine, PerBlock, PerChannel
from edgekd.export.storage import CODES, DOMAIN, NATIVE, WEIGHT, Stored, kernel_integers, store
from edgekd.numerics.groups import scale_shape
from edgekd.profile.probe import ProbeRow, judge_stored, layers_of

if TYPE_CHECKING:
    from edgekd.core.progress import Progress
    from edgekd.core.target import Target
    from edgekd.core.types import Scheme
    from edgekd.profile.probe import CheckUp

#: operator -> shape of its weights, shape of its input, shape of its output
_OPS: dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]] = {
    "conv 3x3": ((32, 32, 3, 3), (1, 32, 8, 8), (1, 32, 6, 6)),
    "linear": ((32, 64), (1, 64), (1, 32)),
}
_NODES = {"conv 3x3": ("Conv", {}), "linear": ("Gemm", {"transB": 1})}
_BLOCK, _STEP = 32, np.float32(0.01)
_GRID = np.array(6 / 255, np.float32)
_IR_VERSION, _LAYER = 10, "layer"


@dataclass(frozen=True, slots=True)
class LowBits:
    """One way to store the weights of one operator.

    Attributes:
        op: Of `_OPS`.
        bits: Of its weights.
        stored: Packed bytes that constant nodes unpack, or ONNX integers of that width.
        granularity: Which weights share a scale. Packed ones with a scale per channel stand
            behind quantized activations, for integer kernels; all others behind float ones.
    """

    op: str
    bits: Literal[2, 4, 8]
    stored: Literal["packed", "native"]
    granularity: Literal["per_channel", "per_block"]


def low_bit_cases(target: Target) -> list[LowBits]:
    """What is probed; nothing on a float target."""
    if target.scheme is None:
        return []
    return [
        case
        for op in _OPS
        for case in (
            LowBits(op, 4, "packed", "per_channel"),
            LowBits(op, 2, "packed", "per_channel"),
            LowBits(op, 8, "packed", "per_block"),
            LowBits(op, 4, "packed", "per_block"),
            LowBits(op, 2, "packed", "per_block"),
            LowBits(op, 4, "native", "per_channel"),
            LowBits(op, 2, "native", "per_channel"),
            LowBits(op, 4, "native", "per_block"),
            LowBits(op, 2, "native", "per_block"),
        )
    ]


def with_low_bits(found: CheckUp, target: Target, progress: Progress) -> CheckUp:
    """The check-up with a row for each case; as it is where the target cannot be used.

    Args:
        found: From `probe`.
        target: The same target.
        progress: Gets a bar.
    """
    plan = low_bit_cases(target)
    if not plan or all(row.verdict == "refused" for row in found.rows):
        return found
    rows = []
    with progress.bar(f"probe bits on {target.name}", total=len(plan)) as bar:
        for case in plan:
            rows.append(_row(case, target))
            bar.advance(note=f"{case.op}, {case.bits} bits")
    return found.model_copy(update={"rows": (*found.rows, *rows)})


def _row(case: LowBits, target: Target) -> ProbeRow:
    assert target.scheme is not None  # others have no cases
    try:
        verdict, reason = judge_stored(layers_of(low_bit_model(case, target.scheme), target))
    except (UnsupportedError, DataError) as e:
        verdict, reason = "refused", e.got or e.failed
    return ProbeRow(
        op=case.op,
        bits=case.bits,
        stored=case.stored,
        granularity=case.granularity,
        verdict=verdict,
        reason=reason,
    )


def low_bit_model(case: LowBits, scheme: Scheme) -> bytes:
    """A serialized model with input "x" and output "y" around one operator."""
    from onnx import TensorProto, helper, numpy_helper

    shape, taken, made = _OPS[case.op]
    op, attributes = _NODES[case.op]
    stored = _stored(case, shape)
    in_kernel = case.stored == "packed" and case.granularity == "per_channel"
    constants: dict[str, Any] = {_LAYER + CODES: np.zeros(shape, np.uint8)}
    nodes, value = [], "x"
    if in_kernel:
        found = kernel_integers(stored)
        assert found is not None  # symmetric, and a scale per channel
        integers, scale = found
        constants |= {_LAYER + CODES: integers, "scale": scale, "grid": _GRID}
        constants["zero_points"] = np.zeros(scale.shape, np.int8)
        constants["grid_zero"] = np.array(128 if scheme.activations == "uint8" else 0).astype(
            scheme.activations
        )
        nodes += _grid("x", "real")
        value = "real"
        decoded = [_LAYER + CODES, "scale", "zero_points"]
        nodes.append(helper.make_node("DequantizeLinear", decoded, ["weight"], axis=0))
    else:
        nodes.append(helper.make_node(WEIGHT, [_LAYER + CODES], ["weight"], domain=DOMAIN))
    output = "made" if in_kernel else "y"
    nodes.append(helper.make_node(op, [value, "weight"], [output], name=_LAYER, **attributes))
    nodes += _grid("made", "y") if in_kernel else []
    graph = helper.make_graph(
        nodes,
        "probe",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, taken)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, made)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opset, version = NATIVE[case.bits] if stored.native else (scheme.opset, _IR_VERSION)
    imports = [helper.make_opsetid("", max(opset, scheme.opset)), helper.make_opsetid(DOMAIN, 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=max(version, _IR_VERSION))
    store(model, {_LAYER: stored})
    serialized: bytes = model.SerializeToString()
    return serialized


def _grid(source: str, real: str) -> list[Any]:
    from onnx import helper

    pair = ["grid", "grid_zero"]
    return [
        helper.make_node("QuantizeLinear", [source, *pair], [f"{real}/codes"]),
        helper.make_node("DequantizeLinear", [f"{real}/codes", *pair], [real]),
    ]


def _stored(case: LowBits, shape: tuple[int, ...]) -> Stored:
    shared = PerChannel(axis=0) if case.granularity == "per_channel" else PerBlock(size=_BLOCK)
    groups = scale_shape(shape, shared)
    most = (1 << (case.bits - 1)) - 1
    codes = np.random.default_rng(0).integers(-most, most + 1, shape).astype(np.int32)
    encoding = Affine(
        bits=case.bits,
        signed=True,
        granularity=shared,
        scale=np.full(groups, _STEP, np.float32),
        zero_point=np.zeros(groups, np.int32),
        narrow=True,
    )
    return Stored(codes, encoding, native=case.stored == "native")
