from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from edgekd.core.errors import DataError, RecipeError
from edgekd.core.types import PerBlock, Scheme
from edgekd.numerics.encoding import stored_bytes
from edgekd.quantize.fold import fold_batch_norms, trace
from edgekd.quantize.redistribute import gradient_norms, pointed_layers, shared_points
from edgekd.quantize.settings import QuantizeSettings
from tests.quantize.nets import trained_looking
from tests.quantize.test_convert import aware

SCHEME = Scheme(activations="uint8", bias="float32")
DQ = {"name": "differentiable", "bits": 4}


def graph_of(name: str) -> Any:
    return fold_batch_norms(trace(trained_looking(name)))


def test_shares_by_hand() -> None:
    # 8 each and 24 to share: 24 * 5 / 8, 24 * 2 / 8, 24 * 1 / 8
    assert shared_points({"a": 5, "b": 2, "c": 1}, dict.fromkeys("abc", 16)) == {
        "a": 23,
        "b": 14,
        "c": 11,
    }
    # 24 / 9 is 2.67 nine times, rounded 3: three too many, taken from the first of the most
    equal = shared_points(dict.fromkeys("abcdefghi", 1.0), dict.fromkeys("abcdefghi", 5))
    assert sum(equal.values()) == 45
    assert set(equal.values()) == {5}
    # no norm, no reason to move; two points each leave nothing to move
    assert shared_points({"a": 0.0, "b": 0.0}, {"a": 4, "b": 4}) == {"a": 4, "b": 4}
    assert shared_points({"a": 9.0, "b": 0.0}, {"a": 2, "b": 2}) == {"a": 2, "b": 2}


@given(
    st.lists(
        st.tuples(st.floats(0, 1e6, allow_nan=False), st.integers(2, 256)),
        min_size=1,
        max_size=12,
    )
)
def test_the_sum_stays_and_every_layer_keeps_half(layers: list[tuple[float, int]]) -> None:
    points = {str(i): count for i, (_, count) in enumerate(layers)}
    found = shared_points({str(i): norm for i, (norm, _) in enumerate(layers)}, points)
    assert sum(found.values()) == sum(points.values())
    assert all(max(2, points[x] // 2) <= found[x] <= 256 for x in points)


def test_norms_are_those_of_the_mean_gradient_and_leave_no_trace() -> None:
    graph = graph_of("dense").eval()
    draw = torch.Generator().manual_seed(0)
    inputs = torch.randn(12, 1, 16, 16, generator=draw)
    labels = torch.arange(12) % 10
    pairs = [(inputs[:6], labels[:6]), (inputs[6:], labels[6:])]
    found = gradient_norms(graph, ["hidden", "head"], pairs, F.cross_entropy)
    assert all(p.grad is None for p in graph.parameters())
    F.cross_entropy(graph(inputs), labels).backward()  # two halves of equal size: the same mean
    for path, norm in found.items():
        assert norm == pytest.approx(graph.get_submodule(path).weight.grad.norm().item(), rel=1e-4)
    inputs[0] = torch.nan
    with pytest.raises(DataError, match="gradient of the layer 'hidden' is not finite"):
        gradient_norms(graph, ["hidden", "head"], pairs, F.cross_entropy)


def test_points_become_rules_that_say_what_is_stored() -> None:
    settings = QuantizeSettings(
        weights=DQ,  # type: ignore[arg-type]
        rules=(
            {"layers": "first", "weights": {"name": "minmax", "bits": 8}},  # type: ignore[arg-type]
            {"layers": "conv1", "weights": DQ, "granularity": {"kind": "per_block", "size": 32}},
        ),
    )
    graph = graph_of("residual")
    layers = pointed_layers(graph, settings, SCHEME)
    assert [x.layer for x in layers] == ["conv1", "conv2", "shortcut", "head"]
    assert layers[0].granularity == PerBlock(size=32)
    counts = {"conv1": 9, "conv2": 17, "shortcut": 30, "head": 8}
    rules = (*settings.rules, *(x.rule(counts[x.layer]) for x in layers))
    frozen = aware(trained_looking("residual"), weights=DQ, rules=rules).freeze()
    assert frozen.weights["stem"].bits == 8
    assert {path: frozen.weights[path].bits for path in counts} == {
        "conv1": 4,
        "conv2": 5,
        "shortcut": 5,
        "head": 3,
    }
    book = frozen.weights["conv1"]
    assert book.granularity == PerBlock(size=32)
    assert book.centroids.size == 9  # type: ignore[union-attr]
    # 8 * 16 * 9 weights of 4 bits, 36 blocks with scale and offset, 9 points
    assert stored_bytes(1152, book) == 576 + 4 * (72 + 9)


def test_nothing_to_share_is_an_error() -> None:
    with pytest.raises(RecipeError, match="redistribute_batches has no points to share out"):
        pointed_layers(graph_of("dense"), QuantizeSettings(), SCHEME)
