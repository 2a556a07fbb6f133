"""Points of codebooks shared out between layers, through a whole run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgekd.core.ledger import Ledger
from edgekd.report import html
from tests.end_to_end.conftest import Finished


def test_two_seeds_share_the_points_that_their_gradients_give(
    compress_vectors: Callable[..., Finished], vectors: Path
) -> None:
    weights = {"name": "differentiable", "bits": 3}
    asked = {"method": "post_training", "weights": weights, "redistribute_batches": 2}
    run = compress_vectors(seeds=2, quantize=asked)
    events = Ledger(vectors / "run" / "ledger.jsonl").events
    stages = {e["name"]: e for e in events if e["event"] == "stage_done"}
    norms = [stages[f"gradients/seed-{seed}"]["result"]["norms"] for seed in (0, 1)]
    assert norms[0].keys() == norms[1].keys()
    assert norms[0] != norms[1]
    rules = [stages[f"post_training/seed-{seed}"]["needs"]["quantize"]["rules"] for seed in (0, 1)]
    assert rules[0] == rules[1]
    points = [rule["weights"]["points"] for rule in rules[0]]
    assert len(points) == len(norms[0])
    assert sum(points) == 8 * len(points)
    assert min(points) >= 4
    assert len(set(points)) > 1
    (shared,) = run.report.points
    assert [(x.before, x.after) for x in shared.layers] == [(8, count) for count in points]
    assert {x.layer for x in shared.layers} == set(norms[0])
    means = [(norms[0][x.layer] + norms[1][x.layer]) / 2 for x in shared.layers]
    assert [x.norm for x in shared.layers] == pytest.approx(means)
    assert "Codebook points per layer" in html.render(run.report)
