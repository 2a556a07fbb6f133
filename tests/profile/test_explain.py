"""Golden numbers: sums of the hand-made times below."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekd.core.types import LayerRecord, Precision, Role
from edgekd.profile.breakdown import CATEGORIES, Explained, breakdown, category, joined
from edgekd.profile.explain import Explanation, explain
from edgekd.profile.findings import INT8_FLAGS

FLOAT = Explained(
    "f.onnx on a",
    latency_us=100.0,
    layers=(
        LayerRecord("conv1", "Conv", "matmul", "float32", 40.0, "input and weights are float"),
        LayerRecord("conv2", "Conv", "matmul", "float32", 30.0, "input and weights are float"),
        LayerRecord("act", "HardSwish", "other", "float32", 10.0),
        LayerRecord("soft", "Softmax", "other", "float32", 15.0),
    ),
    architecture="x86_64",
    cpu_flags=("avx2", "avx512_vnni"),
)
INT8 = Explained(
    "q.onnx on a",
    latency_us=120.0,
    layers=(
        LayerRecord("input/codes", "QuantizeLinear", "other", "int8", 4.0),
        LayerRecord("conv1_quant [conv1]", "QLinearConv", "matmul", "int8", 15.0),
        LayerRecord("between", "DequantizeLinear", "requantize", "float32", 3.0),
        LayerRecord("conv2", "FusedConv", "matmul", "float32", 33.0, "bias is float"),
        LayerRecord("act", "HardSwish", "other", "float32", 10.0),
        LayerRecord("soft", "Softmax", "other", "float32", 15.0),
    ),
    architecture="x86_64",
    cpu_flags=("avx2", "avx512_vnni"),
)


def titles(found: Explanation) -> list[str]:
    return [finding.title for finding in found.findings]


def test_the_time_by_category() -> None:
    found = breakdown(INT8)
    assert {c: (s.count, s.time_us) for c, s in found.categories.items()} == {
        "matmul int8": (1, 15.0),
        "matmul float": (1, 33.0),
        "reformat": (2, 7.0),
        "elementwise": (1, 10.0),
        "other": (1, 15.0),
    }
    assert (found.layers_us, found.latency_us, found.untimed) == (80.0, 120.0, 0)
    assert {reason: s.count for reason, s in found.floats.items()} == {"bias is float": 1}


def test_findings_come_by_microseconds_with_what_to_change() -> None:
    found = explain(FLOAT, INT8)
    assert [(f.time_us, f.title) for f in found.findings] == [
        (40.0, "the cost of a call counts: its layers sum to 80.0 us of 120.0 us measured"),
        (33.0, "1 convolution or product in float: 33.0 us of 80.0 us; bias is float"),
        (10.0, "1 elementwise node in float beside int8 layers (HardSwish): 10.0 us"),
        (4.0, "1 node only for layout or precision (QuantizeLinear): 4.0 us"),
        (3.0, "1 Q/DQ node left standing inside the graph: 3.0 us"),
    ]
    assert "int32 behind a DequantizeLinear" in found.findings[1].what_to_change
    assert all(f.what_to_change and f.read_from for f in found.findings)
    assert found.notes == ()


def test_layers_are_joined_by_the_files_names() -> None:
    pairs = {p.name: p for p in joined(FLOAT.layers, INT8.layers)}
    assert (pairs["conv1"].first_us, pairs["conv1"].second_us) == (40.0, 15.0)
    assert (pairs["conv1"].first, pairs["conv1"].second) == ("Conv float32", "QLinearConv int8")
    assert (pairs["between"].first_us, pairs["between"].second_us) == (None, 3.0)
    assert next(iter(pairs)) == "conv1", "the largest change first"


def test_what_a_runtime_splits_adds_up() -> None:
    parts = (
        LayerRecord("a [fc]", "QGemm", "matmul", "int8", 2.0),
        LayerRecord("b [fc]", "QGemm", "matmul", "int8", 3.0),
        LayerRecord("fc/MatMulAddFusion", "Add", "other", "int8", 1.0),
    )
    (pair,) = joined((), parts)
    assert (pair.name, pair.second_us, pair.second) == ("fc", 6.0, "2 QGemm int8, Add int8")


def test_layers_that_int8_made_slower() -> None:
    slow = (replace(INT8.layers[1], time_us=47.5), *INT8.layers[2:])
    found = explain(FLOAT, replace(INT8, layers=slow))
    assert "1 layer slower in int8 than in the first model, by 7.5 us; most in conv1" in titles(
        found
    )


@pytest.mark.parametrize(("architecture", "flags"), list(INT8_FLAGS.items()))
def test_a_cpu_without_int8_instructions(architecture: str, flags: tuple[str, ...]) -> None:
    def said(*has: str) -> bool:
        model = replace(INT8, architecture=architecture, cpu_flags=has)
        return any("int8 gains little" in title for title in titles(explain(FLOAT, model)))

    assert said("avx2")
    assert not any(said("avx2", flag) for flag in flags)
    assert not said(), "flags that could not be read are no finding"
    assert not any(
        "gains little" in t for t in titles(explain(INT8, replace(FLOAT, cpu_flags=("avx2",))))
    )


def test_a_subgraph_is_named_as_the_reason() -> None:
    layer = LayerRecord("fc", "Subgraph", "matmul", "float32", 5.0)
    found = explain(FLOAT, replace(INT8, latency_us=5.0, layers=(layer,)))
    assert titles(found) == [
        "1 convolution or product in float: 5.0 us of 5.0 us; "
        "merged with its neighbours into one Subgraph kernel"
    ]
    assert "SNIPPETS_MODE: DISABLE" in found.findings[0].what_to_change


def test_an_unknown_reason_is_called_so() -> None:
    layer = LayerRecord("x", "Odd", "matmul", "float32", 5.0)
    found = explain(FLOAT, replace(INT8, latency_us=5.0, layers=(layer,)))
    assert "no reason known" in titles(found)[0]
    assert found.findings[0].what_to_change.startswith("run `edgekd doctor`")


def test_counters_that_cost_more_than_the_call_are_noted() -> None:
    found = explain(FLOAT, replace(INT8, latency_us=40.0))
    assert found.notes == (
        "q.onnx on a: the layers sum to 80.0 us, above the 40.0 us measured without counters; "
        "take them as shares",
    )
    assert not any("cost of a call" in title for title in titles(found))


def test_a_layer_without_a_time_is_noted_and_nothing_is_said_of_the_call() -> None:
    found = explain(FLOAT, replace(INT8, layers=(replace(INT8.layers[0], time_us=None),)))
    assert found.notes == ("q.onnx on a: nodes without a time: 1",)
    assert not any("cost of a call" in title for title in titles(found))


roles: st.SearchStrategy[Role] = st.sampled_from(["matmul", "requantize", "other"])
precisions: st.SearchStrategy[Precision] = st.sampled_from(["int8", "float32", "int4", "other"])
records = st.builds(
    LayerRecord,
    name=st.sampled_from(["a", "b", "x [a]", "c/WithoutBiases"]),
    op=st.sampled_from(["Conv", "Reorder", "Add", "Subgraph", "Softmax"]),
    role=roles,
    precision=precisions,
    time_us=st.floats(0, 1e6),
)
models = st.lists(records, max_size=8).map(lambda found: replace(INT8, layers=tuple(found)))


@given(first=models, second=models)
def test_no_microsecond_is_lost_or_counted_twice(first: Explained, second: Explained) -> None:
    found = explain(first, second)
    for model, where in ((first, found.first), (second, found.second)):
        assert sum(s.count for s in where.categories.values()) == len(model.layers)
        assert sum(s.time_us for s in where.categories.values()) == pytest.approx(where.layers_us)
    assert sum(p.second_us or 0 for p in found.pairs) == pytest.approx(found.second.layers_us)
    times = [f.time_us for f in found.findings]
    assert times == sorted(times, reverse=True)
    assert all(category(layer) in CATEGORIES for layer in second.layers)
