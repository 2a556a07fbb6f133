"""Gives the operators of a .tflite file the times of the kernels that ran them."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from edgekd.core.types import LayerRecord

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    Kernel = tuple[str, float]

_XNNPACK = "XNNPACK "
#: LiteRT's operator -> how XNNPACK's name for its kernel begins
_KERNELS = {
    "ADD": "Add", "AVERAGE_POOL_2D": "Average Pooling", "CONCATENATION": "Concatenate",
    "CONV_2D": "Convolution", "DEPTHWISE_CONV_2D": "Convolution", "DEQUANTIZE": "Convert",
    "FULLY_CONNECTED": "Fully Connected", "LOGISTIC": "Sigmoid", "MAXIMUM": "Maximum",
    "MAX_POOL_2D": "Max Pooling", "MEAN": "Mean", "MINIMUM": "Minimum", "MUL": "Multiply",
    "PAD": "Constant Pad", "QUANTIZE": "Convert", "RELU": "Clamp", "RELU6": "Clamp",
    "RESHAPE": "Static Reshape", "SOFTMAX": "Softmax", "SUB": "Subtract", "TANH": "Tanh",
    "TRANSPOSE": "Transpose",
}  # fmt: skip
_MATMULS = (
    "Convolution", "Fully Connected", "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED",
)  # fmt: skip
#: how a kernel's name says that it multiplies codes, e.g. "(NHWC, QC8)" or "(NC, QD8, F32, QC8W)"
_INTEGERS = re.compile(r"\bQ[A-Z]{1,2}\d")


def timed(layers: Sequence[LayerRecord], kernels: Sequence[Kernel]) -> list[LayerRecord]:
    """The layers with times, and with the precision that their kernels' names tell.

    Convolutions and matrix products follow each other in the same order on both sides. Other
    kernels are looked for between them; one that no operator of the file accounts for, such as
    the clamp behind an addition, becomes a layer of its own, so that no time is lost.

    Args:
        layers: In the order in which they run, without times.
        kernels: Names and mean times in us, in the order in which they ran.

    Returns:
        The layers as they are where the matrix products on both sides do not pair up.
    """
    parts, ran = _split_layers(layers), _split_kernels(kernels)
    if len(parts) != len(ran) or any(
        not _fits(a[-1], b[-1]) for a, b in zip(parts[:-1], ran[:-1], strict=True)
    ):
        return list(layers)
    return [layer for a, b in zip(parts, ran, strict=True) for layer in _matched(a, b)]


def _split_layers(layers: Sequence[LayerRecord]) -> list[list[LayerRecord]]:
    """Runs of layers that each end with a matrix product, and what comes after the last one."""
    parts: list[list[LayerRecord]] = [[]]
    for layer in layers:
        parts[-1].append(layer)
        if layer.role == "matmul":
            parts.append([])
    return parts


def _split_kernels(kernels: Sequence[Kernel]) -> list[list[Kernel]]:
    parts: list[list[Kernel]] = [[]]
    for kernel in kernels:
        parts[-1].append(kernel)
        if kernel[0].startswith(_MATMULS):
            parts.append([])
    return parts


def _matched(layers: Sequence[LayerRecord], kernels: Sequence[Kernel]) -> Iterator[LayerRecord]:
    place = 0
    for layer in layers:
        found = next((i for i in range(place, len(kernels)) if _fits(layer, kernels[i])), None)
        if found is None:
            # XNNPACK made it a part of another kernel
            yield replace(layer, role="other") if layer.role == "requantize" else layer
            continue
        yield from (_own(kernel, layer) for kernel in kernels[place:found])
        yield _with_kernel(layer, kernels[found])
        place = found + 1
    for kernel in kernels[place:]:
        yield LayerRecord(kernel[0], _XNNPACK + kernel[0], "other", "float32", kernel[1])


def _fits(layer: LayerRecord, kernel: Kernel) -> bool:
    by, _, op = layer.op.partition(" ")
    if by + " " != _XNNPACK:
        return kernel[0] == op
    return op in _KERNELS and kernel[0].startswith(_KERNELS[op])


def _with_kernel(layer: LayerRecord, kernel: Kernel) -> LayerRecord:
    name, time_us = kernel
    if layer.role != "matmul" or not layer.op.startswith(_XNNPACK):
        return replace(layer, time_us=time_us)
    if _INTEGERS.search(name):
        return replace(layer, precision="int8", reason="", time_us=time_us)
    reason = layer.reason or f"XNNPACK runs it in {name}"
    return replace(layer, precision="float32", reason=reason, time_us=time_us)


def _own(kernel: Kernel, near: LayerRecord) -> LayerRecord:
    """A kernel without an operator, in the precision of those around it."""
    return LayerRecord(kernel[0], _XNNPACK + kernel[0], "other", near.precision, kernel[1])
