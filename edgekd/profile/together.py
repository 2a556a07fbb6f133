"""Files on one or several devices: what shares a device is timed there in turns."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from edgekd.profile.transports._contract import TRANSPORTS, transport_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from edgekd.core.progress import Progress
    from edgekd.core.target import Target
    from edgekd.core.types import Profile
    from edgekd.profile.measure import MeasureRule
    from edgekd.profile.transports._contract import Device, Load


@contextmanager
def connected(targets: Sequence[Target]) -> Iterator[list[Device]]:
    """A device for each target, in their order; targets reached alike share one.

    Raises:
        RecipeError: A target's transport is not valid.
    """
    devices: dict[str, Device] = {}
    found = []
    for target in targets:
        transport = transport_of(target)
        key = str(TRANSPORTS.spec_of(transport))
        if key not in devices:
            devices[key] = transport.connect()
        found.append(devices[key])
    with ExitStack() as stack:
        for device in devices.values():
            stack.enter_context(device)
        yield found


def measure_on(
    devices: Sequence[Device],
    loads: Sequence[Load],
    rule: MeasureRule,
    *,
    inputs: str,
    progress: Progress,
) -> list[Profile]:
    """Time every file on its device, all those of one device in turns.

    Args:
        devices: Of each file; the same object where it is the same device.
        loads: The files.
        rule: How long.
        inputs: Where the feeds come from.
        progress: Gets a bar or a line for each device.

    Returns:
        A profile per file, in their order.
    """
    profiles: dict[int, Profile] = {}
    for device in dict.fromkeys(devices):
        mine = [i for i, other in enumerate(devices) if other is device]
        measured = device.measure([loads[i] for i in mine], rule, inputs=inputs, progress=progress)
        profiles.update(zip(mine, measured, strict=True))
    return [profiles[i] for i in range(len(loads))]
