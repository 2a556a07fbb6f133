"""`edgekd init`: a commented recipe that runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def init(
    path: Annotated[Path, typer.Argument(help="The file to write.")] = Path("edgekd.yaml"),
    recipe: Annotated[
        str, typer.Option("--from", help="The built-in recipe to start from.")
    ] = "digits",
) -> None:
    """Write a commented recipe; run it with `edgekd compress PATH`."""
    from edgekd.core.config import nearest
    from edgekd.core.errors import RecipeError
    from edgekd.core.files import atomic_write
    from edgekd.recipes import builtin_names, builtin_text

    if recipe not in builtin_names():
        raise RecipeError(f"No built-in recipe named {recipe!r}{nearest(recipe, builtin_names())}")
    if path.exists():
        raise RecipeError(
            f"{path} exists already.",
            expected="a new file",
            todo="choose another name, or remove the file first",
        )
    atomic_write(path, builtin_text(recipe))
    print(f"wrote {path}; run it with: edgekd compress {path}")
