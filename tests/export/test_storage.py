from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekd.backends._contract import BACKENDS
from edgekd.backends._kernels import count_kernels
from edgekd.core.target import load_target
from edgekd.core.types import Affine, Codebook, PerBlock, PerChannel, PerTensor, Widths
from edgekd.export.storage import DOMAIN, WEIGHT, Stored, form, kernel_integers, store
from edgekd.numerics.affine import asymmetric_range, symmetric_scale
from edgekd.numerics.encoding import decode
from edgekd.numerics.groups import scale_shape, to_rows

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgekd.core.target import Target
    from edgekd.core.types import Encoding, KernelCount
    from edgekd.numerics.groups import Granularity

    Encode = Callable[[np.ndarray, int, Granularity], Encoding]

ROWS, WHOLE = PerChannel(axis=0), PerTensor()
#: neither divides the weights of the net: the last block of every layer is short
BLOCKS, ODD_BLOCKS = PerBlock(size=32), PerBlock(size=7)


def symmetric(weight: np.ndarray, bits: int, shared: Granularity) -> Affine:
    scale = symmetric_scale(np.abs(to_rows(weight, shared)).max(axis=1), bits=bits)
    scale = scale.reshape(scale_shape(weight.shape, shared))
    zeros = np.zeros(scale.shape, np.int32)
    return Affine(bits, True, shared, scale, zeros, narrow=bits > 1)


def with_offset(weight: np.ndarray, bits: int, shared: Granularity) -> Affine:
    rows, shape = to_rows(weight, shared), scale_shape(weight.shape, shared)
    low, high = rows.min(axis=1), rows.max(axis=1)
    scale = (np.maximum(high - low, 1e-6) / ((1 << bits) - 1)).reshape(shape)
    zeros = np.zeros(shape, np.int32)
    return Affine(bits, False, shared, scale.astype(np.float32), zeros, offset=low.reshape(shape))


def with_zero_point(weight: np.ndarray, bits: int, shared: Granularity) -> Affine:
    rows, shape = to_rows(weight, shared), scale_shape(weight.shape, shared)
    pairs = [asymmetric_range(row.min(), row.max(), bits=bits) for row in rows]
    scale, zeros = (np.array(part).reshape(shape) for part in zip(*pairs, strict=True))
    return Affine(bits, False, shared, scale, zeros)


def codebook(weight: np.ndarray, bits: int, shared: Granularity) -> Codebook:
    rows, shape = to_rows(weight, shared), scale_shape(weight.shape, shared)
    points = np.random.default_rng(bits).normal(0, 0.4, 1 << bits).astype(np.float32)
    return Codebook(bits, shared, np.sort(points), np.abs(rows).max(axis=1).reshape(shape))


def binary(weight: np.ndarray, bits: int, shared: Granularity) -> Codebook:
    rows, shape = to_rows(weight, shared), scale_shape(weight.shape, shared)
    scale = np.abs(rows).mean(axis=1).reshape(shape).astype(np.float32)
    return Codebook(bits, shared, np.float32([-1, 1]), scale)


FORMS: list[tuple[Encode, int, Granularity]] = [
    *((symmetric, bits, ROWS) for bits in range(1, 9)),
    (symmetric, 3, WHOLE),
    (binary, 1, ROWS),
    (symmetric, 4, PerChannel(axis=1)),
    (symmetric, 2, BLOCKS),
    (with_offset, 1, ODD_BLOCKS),
    (with_offset, 2, BLOCKS),
    (with_offset, 4, BLOCKS),
    (with_offset, 8, PerBlock(size=1000)),
    (with_zero_point, 4, ROWS),
    (with_zero_point, 3, ODD_BLOCKS),
    (codebook, 2, ROWS),
    (codebook, 3, BLOCKS),
    (codebook, 8, WHOLE),
]
KERNELS = {symmetric, binary}
RUNTIMES = ["x86-onnxruntime-int8", "x86-openvino-int8"]


SHAPE = (8, 5, 3, 3)


def inputs_shape(made: Stored) -> tuple[int, ...]:
    return (1, made.codes.shape[1], 8, 8)[: 4 if made.codes.ndim == 4 else 2]


def inputs_for(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(1).normal(0, 0.8, shape).astype(np.float32)


def stored(
    encode: Encode, bits: int, shared: Granularity, shape: tuple[int, ...] = SHAPE
) -> Stored:
    weight = np.random.default_rng(0).normal(0, 0.1, shape).astype(np.float32)
    return Stored.of(weight, encode(weight, bits, shared))


def model(made: Stored, *, packed: bool, integers: bool) -> bytes:
    """A layer between grids; not `packed`, its weight is the decoded float array."""
    constants = {
        "step": np.float32(0.02),
        "middle": np.array(128, np.uint8),
        "layer.codes": np.zeros(made.codes.shape, np.uint8),
        "b": np.zeros(SHAPE[0], np.float32),
    }
    nodes = []

    def node(op: str, inputs: str, output: str, **attributes: object) -> None:
        nodes.append(helper.make_node(op, inputs.split(), [output], **attributes))

    node("QuantizeLinear", "x step middle", "x_codes")
    node("DequantizeLinear", "x_codes step middle", "x_real")
    kernel = kernel_integers(made) if integers else None
    if not packed:
        constants["w"] = decode(made.codes, made.encoding)
    elif kernel is None:
        node(WEIGHT, "layer.codes", "w", domain=DOMAIN)
    else:
        constants["layer.codes"], constants["s"] = kernel
        constants["z"] = np.zeros(constants["s"].shape, np.int8)
        constants["b_codes"] = np.zeros(SHAPE[0], np.int32)
        constants["b_step"] = constants["s"] * np.float32(0.02)
        node("DequantizeLinear", "layer.codes s z", "w", axis=0)
        node("DequantizeLinear", "b_codes b_step", "b", axis=0)
        del constants["b"]
    if made.codes.ndim == 2:
        node("Gemm", "x_real w b", "y_real", name="layer", transB=1)
    else:
        node("Conv", "x_real w b", "y_real", name="layer", pads=[1] * 4)
    node("QuantizeLinear", "y_real step middle", "y_codes")
    node("DequantizeLinear", "y_codes step middle", "y")
    used = {name for n in nodes for name in n.input}
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, inputs_shape(made))],
        [
            helper.make_tensor_value_info(
                "y", TensorProto.FLOAT, [1, SHAPE[0], 8, 8][: made.codes.ndim]
            )
        ],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items() if k in used],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(DOMAIN, 1)]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    store(proto, {"layer": made} if packed else {})
    onnx.checker.check_model(proto, full_check=True)
    serialized: bytes = proto.SerializeToString()
    return serialized


@cache
def reference(encode: Encode, bits: int, shared: Granularity) -> np.ndarray:
    """What plain float weights give in the standard's evaluator."""
    return evaluate(model(stored(encode, bits, shared), packed=False, integers=False))


def evaluate(serialized: bytes) -> np.ndarray:
    from onnx.reference import ReferenceEvaluator

    proto = onnx.load_from_string(serialized)
    out: np.ndarray = ReferenceEvaluator(proto).run(None, {"x": inputs_for((1, 5, 8, 8))})[0]
    return out


@pytest.mark.parametrize("integers", [False, True])
@pytest.mark.parametrize(("encode", "bits", "shared"), FORMS)
def test_packed_weights_are_the_plain_ones(
    encode: Encode, bits: int, shared: Granularity, integers: bool
) -> None:
    made = stored(encode, bits, shared)
    if integers and (kernel_integers(made) is None):
        assert not (encode in KERNELS and shared in (ROWS, WHOLE))
        return
    found = evaluate(model(made, packed=True, integers=integers))
    # a sum that lies on an edge of the grid may fall on either side
    assert np.mean(np.abs(found - reference(encode, bits, shared)) > 1e-6) < 0.01


@pytest.mark.parametrize("name", RUNTIMES)
@pytest.mark.parametrize(("encode", "bits", "shared"), FORMS)
def test_runtimes_load_it_and_run_the_kernel_it_is_made_for(
    encode: Encode, bits: int, shared: Granularity, name: str, tmp_path: Path
) -> None:
    made, target = stored(encode, bits, shared), load_target(name)
    integers = kernel_integers(made) is not None
    found, count = run(target, model(made, packed=True, integers=True), tmp_path)
    wanted = reference(encode, bits, shared)
    assert np.abs(found - wanted).mean() < 0.02 * wanted.std()
    assert count.int8 + count.float == 1
    # ONNX Runtime makes int8 out of float weights between grids by itself
    if integers or target.backend == "openvino":
        assert (count.int8 == 1) == integers


@pytest.mark.parametrize("linear", [False, True], ids=["conv", "linear"])
@pytest.mark.parametrize("name", RUNTIMES)
def test_targets_hold_what_their_files_say(name: str, linear: bool, tmp_path: Path) -> None:
    target, shape = load_target(name), (8, 45) if linear else SHAPE
    assert target.scheme is not None
    held = target.scheme.holds.matmul if linear else target.scheme.holds.conv
    seen: dict[str, list[int]] = {"kernel": [], "storage": []}
    for bits in range(1, 9):
        made = stored(symmetric, bits, ROWS, shape)
        _, count = run(target, model(made, packed=True, integers=True), tmp_path)
        if count.int8:
            seen["kernel"].append(bits)
        made = stored(with_offset, bits, BLOCKS, shape)
        plain = model(made, packed=False, integers=False)
        packed = model(made, packed=True, integers=False)
        wanted, found = (run(target, m, tmp_path)[0] for m in (plain, packed))
        if np.array_equal(wanted, found):
            seen["storage"].append(bits)
    assert {key: tuple(bits) for key, bits in seen.items()} == held.model_dump()


def run(target: Target, serialized: bytes, folder: Path) -> tuple[np.ndarray, KernelCount]:
    backend = BACKENDS.get(target.backend)()
    path = backend.build(serialized, target, folder / "net")
    with backend.open(path, target, threads=1) as session:
        shape = tuple(size or 1 for size in session.inputs[0].shape)
        feeds = {"x": inputs_for(shape)}
        found = session.run(feeds)["y"]
    return found, count_kernels(backend.layers(path, target, feeds, threads=1))


@pytest.mark.parametrize(
    ("encode", "bits", "in_float", "expected"),
    [
        (symmetric, 4, False, "kernel"),
        (symmetric, 4, True, "storage only"),
        (symmetric, 3, False, None),
        (codebook, 4, False, "storage only"),
        (codebook, 8, False, None),
        (binary, 1, False, None),
    ],
)
def test_the_form_follows_what_a_target_holds(
    encode: Encode, bits: int, in_float: bool, expected: str | None
) -> None:
    held = Widths(kernel=(4, 8), storage=(4,))
    assert form(stored(encode, bits, ROWS), held, in_float=in_float) == expected


@pytest.mark.parametrize("bits", range(1, 8))
def test_the_codes_take_their_bits_and_no_more(bits: int) -> None:
    made = stored(symmetric, bits, ROWS)
    for integers in (True, False):
        proto = onnx.load_from_string(model(made, packed=True, integers=integers))
        arrays = {i.name: numpy_helper.to_array(i) for i in proto.graph.initializer}
        assert arrays["layer.codes"].nbytes == -(-made.codes.size * bits // 8)
        assert {o.domain for o in proto.opset_import} == {""}


def test_eight_bits_for_integer_kernels_are_plain_int8() -> None:
    proto = onnx.load_from_string(model(stored(symmetric, 8, ROWS), packed=True, integers=True))
    (codes,) = [i for i in proto.graph.initializer if i.name == "layer.codes"]
    assert codes.data_type == TensorProto.INT8
    assert not [n for n in proto.graph.node if n.op_type == "Gather"]
