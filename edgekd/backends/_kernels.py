"""Counting kernels, the same way for every runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekd.core.types import KernelCount

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgekd.core.types import LayerRecord

UNKNOWN_REASON = "no reason known"


def count_kernels(layers: Sequence[LayerRecord]) -> KernelCount:
    """Convolutions and matrix products by kernel, and the Q/DQ nodes left standing.

    Everything that is not in an int8 kernel counts as float: weights of fewer bits that are
    decoded first are computed in float too.
    """
    matmuls = [layer for layer in layers if layer.role == "matmul"]
    floats = [layer for layer in matmuls if layer.precision != "int8"]
    return KernelCount(
        int8=len(matmuls) - len(floats),
        float=len(floats),
        unfused=sum(layer.role == "requantize" for layer in layers),
        floats={layer.name: layer.reason or UNKNOWN_REASON for layer in floats},
    )
