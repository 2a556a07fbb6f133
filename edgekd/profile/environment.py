"""The machine behind a figure: what it is, what is installed, and what state it is in."""

from __future__ import annotations

from typing import Any

from edgekd.profile.agent.machine import machine, state, versions

_PACKAGES = ("edgekd", "torch", "onnx", "onnxruntime", "openvino", "numpy")


def environment() -> dict[str, Any]:
    """Plain JSON values in three parts.

    ``machine`` and ``versions`` stay the same from call to call on one machine, so a stage may
    depend on them; ``state`` (load, governor, frequency, temperature) does not. What cannot be
    read is None, with the reason under the same key followed by ``_why``.
    """
    return {"machine": machine(), "versions": versions(_PACKAGES), "state": state()}
