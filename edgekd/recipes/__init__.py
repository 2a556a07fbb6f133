"""Recipes that come with edgekd: commented YAML, one file each."""

from __future__ import annotations

from importlib.resources import files


def builtin_names() -> list[str]:
    """Names of the recipes that come with edgekd."""
    return sorted(
        p.name.removesuffix(".yaml")
        for p in files("edgekd.recipes").iterdir()
        if p.name.endswith(".yaml")
    )


def builtin_text(name: str) -> str:
    """The commented YAML of a built-in recipe."""
    return (files("edgekd.recipes") / f"{name}.yaml").read_text(encoding="utf-8")
