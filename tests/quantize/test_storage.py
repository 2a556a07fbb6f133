from __future__ import annotations

import numpy as np
import pytest

from edgekd.numerics.encoding import encode, stored_bytes
from edgekd.numerics.entropy import huffman_lengths
from edgekd.quantize.storage import weight_storage
from tests.quantize.nets import trained_looking
from tests.quantize.test_convert import aware


@pytest.mark.parametrize(
    "weights",
    [
        {"name": "minmax", "bits": 8},
        {"name": "minmax", "bits": 4},
        {"name": "bucketed", "bits": 2},
        {"name": "differentiable", "bits": 3},
    ],
    ids=lambda w: f"{w['name']}-{w['bits']}",
)
def test_everything_is_counted(weights: dict[str, object]) -> None:
    student = aware(trained_looking("residual"), weights=weights).freeze()
    found = weight_storage(student)
    layers = {path: student.graph.get_submodule(path).weight for path in student.weights}
    assert found.weights == sum(w.numel() for w in layers.values())
    sizes = [stored_bytes(layers[p].numel(), e) for p, e in student.weights.items()]
    assert found.stored_bytes == sum(sizes)
    codes = np.concatenate(
        [encode(layers[p].detach().numpy(), e).reshape(-1) for p, e in student.weights.items()]
    )
    counts = np.bincount(codes - codes.min())
    mean_bits = float((counts * huffman_lengths(counts)).sum() / counts.sum())
    bits = int(str(weights["bits"]))
    beside = found.stored_bytes - found.weights * bits / 8
    expected = found.weights * mean_bits / 8 + beside + (1 << bits)
    assert found.huffman_bytes == pytest.approx(expected, abs=len(layers) + 1)


def test_weights_near_zero_compress() -> None:
    """Four bits by the largest value: most codes lie around zero."""
    student = aware(trained_looking("dense"), weights={"name": "minmax", "bits": 4}).freeze()
    found = weight_storage(student)
    assert found.huffman_bytes < found.stored_bytes
