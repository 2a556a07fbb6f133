"""`edgekd build`: what a target's runtime loads, made of an ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from edgekd.profile.build import Built

_FOLDER = Path("built")


def build(
    model: Annotated[Path, typer.Argument(help="An ONNX file, from edgekd or from anywhere.")],
    target: Annotated[str, typer.Option(help="What to build for; its device need not be here.")],
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = _FOLDER,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Build an ONNX file for a target, also for a GPU that is not here; nothing is timed."""
    import json
    from dataclasses import asdict

    from edgekd.core.target import load_target
    from edgekd.profile.build import build_file

    built = build_file(model, load_target(target), out)
    if as_json:
        print(json.dumps({**asdict(built), "path": str(built.path)}, indent=2))
    else:
        print("\n".join(lines(built)))


def lines(built: Built) -> list[str]:
    """What was made, for a terminal."""
    from edgekd.report.format import size

    said = [f"{built.path}: {size(built.size_bytes)}, built by {built.runtime}"]
    if built.kernels is not None:
        counted = built.kernels
        said.append(f"as compiled: {counted.int8} int8 kernels, {counted.float} float")
        said += [f"  {name}: {reason}" for name, reason in counted.floats.items()]
    if built.not_run:
        said.append(f"not run: {built.not_run}")
    return said
