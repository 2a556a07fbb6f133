"""No device at all: real outputs from this machine, and times that no clock has measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from edgekd.core.config import Config
from edgekd.core.errors import UnsupportedError
from edgekd.core.types import Profile
from edgekd.numerics.statistics import needed_samples
from edgekd.profile.measure import conditions
from edgekd.profile.transports._contract import TRANSPORTS
from edgekd.profile.transports.local import LocalDevice

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgekd.core.progress import Progress
    from edgekd.profile.measure import MeasureRule
    from edgekd.profile.sustained import Sustained
    from edgekd.profile.transports._contract import Load

_SPREAD = 0.05


@TRANSPORTS.register
class Null(Config):
    """For trying a recipe where the device is not at hand. No budget on time or memory is met.

    Attributes:
        latency_ms: Middle of the simulated times.
        seed: Of their scatter.
    """

    latency_ms: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    seed: Annotated[int, Field(ge=0)] = 0

    def connect(self) -> NullDevice:
        """See the contract."""
        return NullDevice(self.latency_ms, self.seed)


class NullDevice(LocalDevice):
    """Opens and runs files here, and makes times up; see the contract of `Device`."""

    def __init__(self, latency_ms: float, seed: int) -> None:
        super().__init__()
        self._latency_ms, self._seed = latency_ms, seed

    def environment(self) -> dict[str, Any]:
        """See the contract."""
        return {**super().environment(), "transport": "null"}

    def measure(
        self, loads: Sequence[Load], rule: MeasureRule, *, inputs: str, progress: Progress
    ) -> list[Profile]:
        """As many samples as the rule asks for, every one of them simulated."""
        progress.say("simulate: no device is measured")
        rng = np.random.default_rng(self._seed)
        count = needed_samples(rule.percentile)
        where = self.environment()
        return [
            Profile(
                artifact_sha256=load.sha256,
                target=load.target.name,
                conditions=conditions(load.target, rule, inputs=inputs, others=len(loads) - 1),
                samples_ns=tuple(
                    int(x) + 1 for x in self._latency_ms * 1e6 * rng.lognormal(0.0, _SPREAD, count)
                ),
                environment=where,
                source="simulated",
            )
            for load in loads
        ]

    def sustain(
        self, load: Load, duration_s: float, *, inputs: str, progress: Progress
    ) -> Sustained:
        """See the contract: there is nothing that could get hot."""
        raise UnsupportedError(
            f"The target {load.target.name!r} is no device, so it cannot be run for minutes."
        )

    def memory(self, load: Load) -> None:
        """See the contract: nothing was measured."""
