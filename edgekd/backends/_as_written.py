"""Runs an ONNX file node by node, nothing fused: what it says, not what a runtime makes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnxruntime

from edgekd.backends._onnx.file import check
from edgekd.backends.onnxruntime import OnnxRuntimeSession, load, provider, session_options
from edgekd.core.target import load_target

if TYPE_CHECKING:
    from pathlib import Path

_TARGET = "x86-onnxruntime-fp32"


def open_as_written(path: Path, *, threads: int) -> OnnxRuntimeSession:
    """A session that keeps every Q/DQ node and computes in float between them.

    It is ONNX Runtime without its optimizer, and so much faster than the standard's evaluator in
    numpy; no integer kernel takes part.

    Raises:
        UnsupportedError: ONNX Runtime refuses the file.
        DataError: The file is damaged or points outside its folder.
    """
    check(path)
    target = load_target(_TARGET)
    options = session_options(target, threads)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return OnnxRuntimeSession(load(path, path, options, provider(target)), path)
