"""Float twins: what an artifact's speed-up is measured against, and nothing else may differ."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekd.core.target import Target, Tolerance

if TYPE_CHECKING:
    from collections.abc import Sequence

_FLOAT_TOLERANCE = Tolerance(mean_abs=1e-3, agreement=0.999)


def float_twins(targets: Sequence[Target]) -> dict[str, Target]:
    """For each target's name the same runtime under the same conditions and options, in float.

    Targets that differ in nothing else share a twin, so that it is made and measured once.
    """
    distinct: list[Target] = []
    twins: dict[str, Target] = {}
    for target in targets:
        twin = _twin(target)
        known = next((t for t in distinct if _measured_alike(t, twin)), None)
        if known is None:
            alike = sum(t.name.partition("#")[0] == twin.name for t in distinct)
            name = f"{twin.name}#{alike + 1}" if alike else twin.name
            known = twin.model_copy(update={"name": name})
            distinct.append(known)
        twins[target.name] = known
    return twins


def _twin(target: Target) -> Target:
    conditions = target.conditions
    return target.model_copy(
        update={
            "name": f"{target.backend}-float-{conditions.threads}t-b{conditions.batch_size}",
            "precision": "float32",
            "scheme": None,
            "tolerance": _FLOAT_TOLERANCE,
        }
    )


def _measured_alike(one: Target, other: Target) -> bool:
    words = {"name", "description", "runtime"}
    return one.model_dump(exclude=words) == other.model_dump(exclude=words)
