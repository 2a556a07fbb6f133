"""Bits per layer by measurement, through whole runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import edgekd
from edgekd.core.errors import BudgetError, RecipeError
from edgekd.distill.evaluation import Evaluation, evaluate
from edgekd.report import html, markdown
from edgekd.steps import mix
from tests.end_to_end.conftest import IMAGES, Finished

if TYPE_CHECKING:
    from edgekd.report.layer_bits import MixedBits


def mixed(**fields: Any) -> dict[str, Any]:
    return {"bits": [2, 4, 8], "samples": 256, **fields}


@pytest.mark.slow
def test_digits_under_a_budget_of_bytes(tmp_path: Path) -> None:
    recipe = {
        **IMAGES,
        "quantize": {
            "train": {"epochs": 2, "batch_size": 64},
            "mixed": mixed(budget="700B"),
            "rules": [{"layers": "first", "weights": {"name": "minmax", "bits": 8}}],
        },
        "targets": ["x86-onnxruntime-int8"],
    }
    report = edgekd.compress(recipe, out=tmp_path)
    (found,) = report.mixed
    assert found.size_bytes == sum(x.size_bytes for x in found.layers) <= 700
    first, *rest = found.layers
    assert (first.bits, first.options) == (8, ())
    assert "'first'" in first.why
    for layer in rest:
        assert [o.bits for o in layer.options] == [2, 4, 8]
        assert layer.size_bytes in {o.size_bytes for o in layer.options}
    assert len({x.bits for x in rest}) > 1  # layers differ, or the choice would be no choice
    page = html.render(report)
    assert "Bits per layer" in page
    assert all(x.layer in page for x in found.layers)
    assert f"| `{rest[0].layer}` |" in markdown.render(report)
    # a larger budget reuses what was measured, and is never predicted to be worse
    larger = {**recipe, "quantize": {**recipe["quantize"], "mixed": mixed(budget="900B")}}
    again = edgekd.compress(larger, out=tmp_path)
    assert again.mixed[0].predicted_increase <= found.predicted_increase
    assert {s.name for s in again.stages if s.reused} >= {"distilled/seed-0", "sensitivity/seed-0"}


def test_vectors_with_two_seeds_share_their_bits(
    compress_vectors: Callable[..., Finished],
) -> None:
    run = compress_vectors(
        seeds=2, quantize={"method": "post_training", "mixed": mixed(bits_per_weight=8)}
    )
    (found,) = run.report.mixed
    taken: MixedBits = found
    assert taken.size_bytes <= taken.budget_bytes
    assert {"sensitivity/seed-0", "sensitivity/seed-1"} <= set(run.stages())
    rules = run.stages()["post_training/seed-0"]["needs"]["quantize"]["rules"]
    assert [r["weights"]["bits"] for r in rules] == [x.bits for x in taken.layers]
    assert rules == run.stages()["post_training/seed-1"]["needs"]["quantize"]["rules"]


def test_too_small_a_budget_is_refused_before_anything_is_trained(
    vectors: Path, compress_vectors: Callable[..., Finished]
) -> None:
    with pytest.raises(RecipeError, match="do not fit into 10 bytes"):
        compress_vectors(quantize={"mixed": mixed(budget="10B")})
    stages = vectors / "run" / "stages"
    assert not [*stages.glob("teacher*"), *stages.glob("control*")]


def test_stopped_between_two_layers_it_goes_on(
    compress_vectors: Callable[..., Finished], monkeypatch: pytest.MonkeyPatch
) -> None:
    quantize = {"method": "post_training", "mixed": mixed(bits=[4, 8], bits_per_weight=8)}
    calls = 0

    def counted(*args: Any) -> Evaluation:
        nonlocal calls
        calls += 1
        if calls == 4:  # the float loss, two widths of the first layer, one of the second
            raise KeyboardInterrupt
        return evaluate(*args)

    monkeypatch.setattr(mix, "evaluate", counted)
    with pytest.raises(KeyboardInterrupt):
        compress_vectors(quantize=quantize)
    stopped = compress_vectors(quantize=quantize)
    assert calls == 4 + 1 + 2  # the float loss again, and the second layer
    assert [len(x.options) for x in stopped.report.mixed[0].layers] == [2, 2]


@pytest.mark.slow
def test_vectors_under_a_latency(compress_vectors: Callable[..., Finished]) -> None:
    quantize = {"method": "post_training", "mixed": mixed(bits=[4, 8], latency="1s")}
    run = compress_vectors(quantize=quantize)
    (found,) = run.report.mixed
    assert found.budget_bytes is None
    assert found.time is not None
    assert found.time.measured_ms["x86-onnxruntime-int8"] <= 1000
    assert any(x.bits is not None for x in found.layers)
    for layer in found.layers:
        four, eight = layer.options[:2]
        # packed bits are unpacked when the file is loaded: what runs is the same
        assert (four.bits, four.same_kernels, eight.slower_us) == (4, True, 0.0)
    assert found.predicted_increase <= 0.01  # all the time in the world buys the least loss
    # what was timed does not depend on the budget, and is not timed again
    quantize["mixed"] = mixed(bits=[4, 8], latency="2s")
    again = compress_vectors(quantize=quantize)
    reused = {s.name for s in again.report.stages if s.reused}
    assert "layer_times/x86-onnxruntime-int8" in reused


def test_a_latency_that_nothing_keeps_is_refused_before_any_training(
    vectors: Path, compress_vectors: Callable[..., Finished]
) -> None:
    with pytest.raises(BudgetError, match="no choice of bits keeps 1e-06 ms") as caught:
        compress_vectors(quantize={"mixed": mixed(bits=[8], latency=1e-6)})
    assert caught.value.exit_code == 1
    assert "measured on an untrained student" in caught.value.expected
    assert not list((vectors / "run").glob("**/*.safetensors"))
