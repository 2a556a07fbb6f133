"""Runtimes report to their makers when they are imported; edgekd imports them without that."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

#: OpenVINO's converter sends an event when it finds this package, else it uses its silent stub
_PACKAGE = "openvino_telemetry"
#: ONNX Runtime reads them once, when it is loaded; the second is what earlier versions called it
_VARIABLES = ("ORT_DISABLE_TELEMETRY", "ORT_TELEMETRY_DISABLED")


@contextmanager
def without_telemetry() -> Iterator[None]:
    """Import a runtime inside: no report is sent, and nothing is written to the home folder.

    A user who has set one of ONNX Runtime's variables keeps what it says.
    """
    before = sys.modules.get(_PACKAGE, ...)
    ours = [name for name in _VARIABLES if name not in os.environ]
    sys.modules[_PACKAGE] = None  # type: ignore[assignment]  # importers see "not installed"
    os.environ.update(dict.fromkeys(ours, "1"))
    try:
        yield
    finally:
        for name in ours:
            del os.environ[name]
        del sys.modules[_PACKAGE]
        if before is not ...:
            sys.modules[_PACKAGE] = before
