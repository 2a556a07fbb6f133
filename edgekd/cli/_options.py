"""Options that several commands on ONNX files share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DEFAULT_TARGET = "x86-onnxruntime-fp32"

Shape = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=1x3x320x320", help="Size of an input that is left open."),
]
Inputs = Annotated[
    Path | None, typer.Option(help="Your own inputs, an .npz; random ones without.")
]
MinDuration = Annotated[float, typer.Option(help="Timed seconds of each, at least.")]
MaxDuration = Annotated[float, typer.Option(help="Timed seconds of each, at most.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
