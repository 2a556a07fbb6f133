"""Points of codebooks shared out between layers, through a run up to the quantized students."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from edgekd.core.errors import UnsupportedError
from edgekd.core.ledger import Ledger
from tests.end_to_end.conftest import Finished


def test_two_seeds_share_the_points_that_their_gradients_give(
    compress_vectors: Callable[..., Finished], vectors: Path
) -> None:
    weights = {"name": "differentiable", "bits": 3}
    asked = {"method": "post_training", "weights": weights, "redistribute_batches": 2}
    with contextlib.suppress(UnsupportedError):  # a target may have no form for codebooks
        compress_vectors(seeds=2, quantize=asked)
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
