from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from edgekd.core.types import Scheme
from edgekd.quantize.mixed import Allocation
from edgekd.quantize.offers import Offer
from edgekd.steps import pace
from edgekd.steps.layer_times import LayerTimes

SCHEME = Scheme(activations="uint8", bias="float32")
OFFERED = tuple(Offer(name, 8, {8: 8, None: 32}) for name in ("a", "b", "c"))
#: float costs a layer 10, 20 and 40 us beside integers, and saves the more loss
TIMES = LayerTimes(
    widest_bits=8,
    whole_us=100.0,
    repeat_us=1.0,
    slower_us={},
    slower_ns={x: {8: 0, None: ns} for x, ns in (("a", 10_000), ("b", 20_000), ("c", 40_000))},
    same_kernels={},
)
INCREASES = {"a": {8: 1.0}, "b": {8: 2.0}, "c": {8: 4.0}}


def choice(monkeypatch: pytest.MonkeyPatch, budget_us: float, overhead_us: float) -> pace.Paced:
    """What is chosen where a whole student takes so much more than its layers say."""

    def whole_ms(_job: Any, _scheme: Scheme, found: Allocation) -> dict[str, float]:
        return {
            "device": (100 + found.slower_ns / 1e3 + overhead_us * (found.slower_ns > 0)) / 1e3
        }

    monkeypatch.setattr(pace, "offered_layers", lambda *_: OFFERED)
    monkeypatch.setattr(pace, "layer_times", lambda *_: TIMES)
    monkeypatch.setattr(pace, "whole_ms", whole_ms)
    mixed = SimpleNamespace(latency=budget_us / 1e3)
    job: Any = SimpleNamespace(recipe=SimpleNamespace(quantize=SimpleNamespace(mixed=mixed)))
    return pace.paced(job, SCHEME, INCREASES)


def bits(found: pace.Paced) -> list[int | None]:
    return [x.bits for x in found.allocation.layers]


def test_where_layers_add_up_the_first_choice_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    found = choice(monkeypatch, 165, 0)
    assert (bits(found), found.tries) == ([8, None, None], 1)
    assert found.predicted_us == 160
    assert found.measured_ms == {"device": 0.16}


def test_a_whole_that_takes_longer_gets_a_smaller_share(monkeypatch: pytest.MonkeyPatch) -> None:
    found = choice(monkeypatch, 165, 15)
    assert (bits(found), found.tries) == ([None, 8, None], 2)
    assert found.predicted_us == 150
    assert found.measured_ms["device"] == pytest.approx(0.165)


def test_where_nothing_else_keeps_it_the_fastest_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    found = choice(monkeypatch, 165, 500)
    assert bits(found) == [8, 8, 8]
    assert found.measured_ms == {"device": 0.1}
    # a prediction above the budget does not speak against what was measured
    assert bits(choice(monkeypatch, 100, 0)) == [8, 8, 8]
