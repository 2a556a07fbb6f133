"""Weights of 4 and 2 bits as ONNX integers of that width, in the runtimes themselves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from edgekd.backends._contract import BACKENDS
from edgekd.core.errors import EdgekdError, UnsupportedError
from edgekd.core.target import load_target
from edgekd.core.types import Affine, PerBlock, PerChannel, PerTensor, QuantizedStudent, Scheme
from edgekd.export.onnx_file import quantized_model
from edgekd.numerics.encoding import stored_bytes
from edgekd.quantize.convert import simulate
from tests.export.test_storage import codebook, symmetric, with_offset, with_zero_point
from tests.quantize.nets import INPUT_SHAPE, trained_looking
from tests.quantize.test_convert import aware, samples

if TYPE_CHECKING:
    from edgekd.core.target import Target
    from edgekd.numerics.groups import Granularity
    from tests.export.test_storage import Encode

#: block sizes that leave a short last block, and one larger than a layer
SHARED = [
    PerChannel(axis=0),
    PerChannel(axis=1),
    PerTensor(),
    PerBlock(size=7),
    PerBlock(size=256),
]


def native(name: str) -> Target:
    target = load_target(name)
    assert target.scheme is not None
    scheme = target.scheme.model_copy(update={"low_bits": "native"})
    return target.model_copy(update={"scheme": scheme})


def scheme_of(target: Target) -> Scheme:
    assert target.scheme is not None
    return target.scheme


def encoded(net: nn.Module, encode: Encode, bits: int, shared: Granularity) -> QuantizedStudent:
    student = aware(net, activation_bits="float").freeze()
    weights = {
        path: encode(student.graph.get_submodule(path).weight.detach().numpy(), bits, shared)
        for path in student.weights
    }
    return replace(student, weights=weights)


def answers(
    target: Target, model: bytes, student: QuantizedStudent, folder: Path
) -> tuple[np.ndarray, np.ndarray]:
    """Of the runtime for the student's file, and of the student simulated in torch."""
    inputs = samples(2, seed=5)
    backend = BACKENDS.get(target.backend)()
    path = backend.build(model, target, folder / "student")
    with backend.open(path, target, threads=1) as session:
        (found,) = session.run({"input": inputs}).values()
    with torch.no_grad():
        expected = simulate(student)(torch.from_numpy(inputs)).numpy()
    return np.asarray(found), expected


def check_equal(found: np.ndarray, expected: np.ndarray) -> None:
    # float32 sums in another order
    assert np.abs(found - expected).max() < 1e-4 * max(1.0, np.abs(expected).max())


def wide() -> nn.Module:
    """About 110 k weights, none of whose layers 256 divides."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 33, 3, stride=3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(33 * 25, 133),
        nn.ReLU(),
        nn.Linear(133, 10),
    )


@pytest.mark.slow
@pytest.mark.parametrize("shared", SHARED, ids=str)
@pytest.mark.parametrize("bits", [4, 2])
@pytest.mark.parametrize("encode", [symmetric, with_offset, with_zero_point])
def test_onnx_runtime_computes_the_student(
    encode: Encode, bits: int, shared: Granularity, tmp_path: Path
) -> None:
    target = native("x86-onnxruntime-int8")
    student = encoded(trained_looking("residual"), encode, bits, shared)
    model = quantized_model(student, scheme_of(target), INPUT_SHAPE, batch_size=2)
    proto = onnx.load_from_string(model)
    kinds = {i.data_type for i in proto.graph.initializer if i.name.endswith(".codes")}
    sign = "" if encode is symmetric else "U"
    assert kinds == {onnx.TensorProto.DataType.Value(f"{sign}INT{bits}")}
    check_equal(*answers(target, model, student, tmp_path))


@pytest.mark.parametrize("bits", [4, 2])
def test_the_file_is_as_small_as_its_bits(bits: int, tmp_path: Path) -> None:
    target, shared = native("x86-onnxruntime-int8"), PerBlock(size=256)
    student = encoded(wide(), with_offset, bits, shared)
    layers = {path: student.graph.get_submodule(path) for path in student.weights}
    counts = {path: layer.weight.numel() for path, layer in layers.items()}
    assert sum(counts.values()) > 100_000
    biases = sum(4 * layer.bias.numel() for layer in layers.values())
    least = biases + sum(stored_bytes(counts[p], e) for p, e in student.weights.items())
    model = quantized_model(student, scheme_of(target), INPUT_SHAPE, batch_size=2)
    assert least <= len(model) <= 1.03 * least + 2048
    check_equal(*answers(target, model, student, tmp_path))


@pytest.mark.parametrize("bits", [4, 2])
def test_openvino_reads_four_bits_and_refuses_two(bits: int, tmp_path: Path) -> None:
    target = native("x86-openvino-int8")
    student = encoded(trained_looking("residual"), with_offset, bits, PerBlock(size=7))
    model = quantized_model(student, scheme_of(target), INPUT_SHAPE, batch_size=2)
    if bits == 2:
        with pytest.raises(EdgekdError):
            answers(target, model, student, tmp_path)
        return
    found, expected = answers(target, model, student, tmp_path)
    assert np.abs(found - expected).mean() < 0.02 * expected.std()


@pytest.mark.parametrize(("encode", "bits"), [(codebook, 4), (symmetric, 3)])
def test_what_onnx_has_no_integers_for_stays_packed(encode: Encode, bits: int) -> None:
    scheme = scheme_of(native("x86-onnxruntime-int8"))
    student = encoded(trained_looking("dense"), encode, bits, PerChannel(axis=0))
    files = [
        quantized_model(student, s, INPUT_SHAPE, batch_size=1)
        for s in (scheme, scheme.model_copy(update={"low_bits": "packed"}))
    ]
    assert files[0] == files[1]


def test_quantized_activations_are_refused() -> None:
    student = aware(trained_looking("dense")).freeze()
    assert all(isinstance(e, Affine) for e in student.weights.values())
    with pytest.raises(UnsupportedError, match="do not go with quantized activations"):
        quantized_model(
            student, scheme_of(native("x86-onnxruntime-int8")), INPUT_SHAPE, batch_size=1
        )
