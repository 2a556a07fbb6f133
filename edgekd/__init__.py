"""edgekd: distil, quantize, export and prove small models against a device and a budget.

The Python entry point is `compress`; it is the command `edgekd compress` as a function. Importing
this package imports no ML framework.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgekd.pipeline import compress as compress
    from edgekd.report.model import Report as Report

__version__ = "0.1.0"
__all__ = ["Report", "__version__", "compress"]

_LAZY = {"compress": "edgekd.pipeline", "Report": "edgekd.report.model"}


def __getattr__(name: str) -> Any:
    """Import the public functions on first use, so that `import edgekd` stays light."""
    if name not in _LAZY:
        raise AttributeError(f"module 'edgekd' has no attribute {name!r}; it has {__all__}")
    import importlib

    return getattr(importlib.import_module(_LAZY[name]), name)
