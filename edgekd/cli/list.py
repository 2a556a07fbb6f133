"""`edgekd list`: what can be named in a recipe, and the settings of each."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from edgekd.core.registry import Registry

#: what a user calls them -> module and name of their registry; targets are files instead
_REGISTRIES = {
    "sources": ("edgekd.tasks._contract", "SOURCES"),
    "tasks": ("edgekd.tasks._contract", "TASKS"),
    "families": ("edgekd.students._contract", "FAMILIES"),
    "objectives": ("edgekd.distill.objectives._contract", "OBJECTIVES"),
    "quantizers": ("edgekd.quantize.quantizers._contract", "QUANTIZERS"),
    "backends": ("edgekd.backends._contract", "BACKENDS"),
    "transports": ("edgekd.profile.transports._contract", "TRANSPORTS"),
}
KINDS = ("targets", *_REGISTRIES)


def list_plugins(
    kind: Annotated[str | None, typer.Argument(help=f"One of: {', '.join(KINDS)}.")] = None,
    name: Annotated[str | None, typer.Argument(help="Show one of them with its fields.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List what a recipe can name; with a NAME, show its settings."""
    from edgekd.core.config import nearest
    from edgekd.core.errors import RecipeError

    if kind is not None and kind not in KINDS:
        raise RecipeError(f"There is no kind {kind!r} to list{nearest(kind, KINDS)}")
    if kind is None or name is None:
        found = {k: summaries(k) for k in (KINDS if kind is None else [kind])}
        _print_json(found) if as_json else _print_summaries(found)
    else:
        one = details(kind, name)
        _print_json(one) if as_json else _print_details(one)


def registry(kind: str) -> Registry[Any]:
    """The registry behind a kind; imports its contract, no plugin."""
    import importlib

    module, attribute = _REGISTRIES[kind]
    found: Registry[Any] = getattr(importlib.import_module(module), attribute)
    return found


def summaries(kind: str) -> dict[str, str]:
    """Name -> one line, of everything of a kind; imports no plugin."""
    if kind != "targets":
        return registry(kind).summaries()
    from edgekd.core.target import load_target, target_names

    return {name: load_target(name).description for name in target_names()}


def details(kind: str, name: str) -> dict[str, Any]:
    """Name, text and fields of one plugin, or the values of one target.

    Raises:
        UnknownPluginError: No such plugin.
        MissingDependencyError: The plugin needs a package that is not installed.
        RecipeError: No such target.
    """
    from dataclasses import asdict

    from edgekd.core.describe import fields_of, summary_of

    if kind == "targets":
        from edgekd.core.target import load_target

        target = load_target(name)
        values = target.model_dump(mode="json", exclude_none=True)
        return {"kind": kind, "name": name, "text": target.description, "values": values}
    cls = registry(kind).get(name)
    return {
        "kind": kind,
        "name": name,
        "text": summary_of(cls),
        "fields": [asdict(field) for field in fields_of(cls)],
    }


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def _print_summaries(found: dict[str, dict[str, str]]) -> None:
    width = max((len(n) for names in found.values() for n in names), default=0)
    blocks = [
        "\n".join([kind, *(f"  {name:<{width}}  {line}".rstrip() for name, line in names.items())])
        for kind, names in found.items()
    ]
    print("\n\n".join(blocks))


def _print_details(one: dict[str, Any]) -> None:
    from edgekd.core.config import dump_yaml

    print(f"{one['name']} ({one['kind']})\n\n{one['text']}")
    if "values" in one:
        print(f"\n{dump_yaml(one['values'])}", end="")
        return
    print("\nfields:" if one["fields"] else "\nIt has no fields.")
    for field in one["fields"]:
        default = "required" if field["required"] else f"default {json.dumps(field['default'])}"
        print(f"  {field['name']}: {field['type']}, {default}")
        if field["description"]:
            print(f"      {field['description']}")
