"""Where the time of each artifact goes, beside the float student in the same runtime."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from edgekd.core.types import LayerRecord
from edgekd.profile.explain import explain
from edgekd.profile.pair import explained, read_layers
from edgekd.profile.together import connected
from edgekd.steps.measure import conditions_of, load_of

if TYPE_CHECKING:
    from pathlib import Path

    from edgekd.profile.breakdown import Explained
    from edgekd.profile.explain import Explanation
    from edgekd.steps.job import Job
    from edgekd.steps.measure import Figures
    from edgekd.steps.ship import Shipment, Shipped


def explanations(
    job: Job, shipment: Shipment, figures: dict[str, Figures]
) -> dict[str, Explanation]:
    """What costs time in every int8 artifact, by target; nothing where times were made up.

    The times of calls are those of the interleaved measurement; the layers are read after it, so
    that the counters disturb no sample.
    """
    found = {}
    for shipped in shipment.artifacts:
        twin = shipment.baseline(shipped, "student_float")
        if shipped.target.precision != "int8" or twin is None:
            continue
        if any(figures[one.name].profile.source != "measured" for one in (twin, shipped)):
            continue
        found[shipped.target.name] = explain(
            _side(job, twin, figures, "float student"), _side(job, shipped, figures, "artifact")
        )
    return found


def _side(job: Job, shipped: Shipped, figures: dict[str, Figures], title: str) -> Explained:
    def work(folder: Path) -> tuple[dict[str, Any], list[str]]:
        with connected([shipped.target]) as (device,):
            layers = read_layers(device, load_of(job, shipped, device))
        return {"layers": [asdict(layer) for layer in layers]}, []

    needs = {
        "file": shipped.artifact.sha256,
        "conditions": conditions_of(shipped),
        "place": asdict(job.place(shipped.target)),
    }
    result = job.run.stage(f"layers/{shipped.name}", needs, work).result
    layers = tuple(LayerRecord(**layer) for layer in result["layers"])
    return explained(title, figures[shipped.name].profile, layers)
