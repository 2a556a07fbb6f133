"""What a network costs, for the report: a figure that is missing there stops no run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgekd.students._cost import measure_cost

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True)
class ReportedCost:
    """Size of a network, as far as it can be counted.

    Attributes:
        parameters: Trained numbers.
        macs: Multiply-accumulates of one sample; None where some layer has no rule.
        warning: Which layers those are; empty where there are none.
    """

    parameters: int
    macs: int | None
    warning: str


def reported_cost(module: nn.Module, input_shape: tuple[int, ...], *, title: str) -> ReportedCost:
    """Count a network that may be a user's own.

    Args:
        module: The network.
        input_shape: Of one sample.
        title: What the warning calls it.
    """
    cost = measure_cost(module, input_shape)
    if not cost.uncounted:
        return ReportedCost(cost.parameters, cost.macs, "")
    warning = (
        f"The multiply-accumulates of the {title} are not counted, because there is no rule for "
        f"{', '.join(cost.uncounted)}."
    )
    return ReportedCost(cost.parameters, None, warning)
