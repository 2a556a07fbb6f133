"""`edgekd list`: what can be named in a recipe, and the settings of each."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from edgekd.core.registry import Registry
    from edgekd.profile.shelf import Kept

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
PLUGIN_KINDS = tuple(_REGISTRIES)
KINDS = ("targets", "profiles", *PLUGIN_KINDS)


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
    if kind == "profiles":
        return {kept.file: _profile_line(kept) for kept in _shipped_profiles()}
    if kind != "targets":
        return registry(kind).summaries()
    from edgekd.core.target import load_target, target_names

    return {name: load_target(name).description for name in target_names()}


def _shipped_profiles() -> list[Kept]:
    from edgekd.core.target import shipped_folder
    from edgekd.profile.shelf import kept

    return kept(shipped_folder("profiles"))


def _profile_line(kept: Kept) -> str:
    from statistics import median

    samples, machine = kept.profile.samples_ns, kept.profile.environment["machine"]
    return (
        f"median {median(samples) / 1e6:.3f} ms of {len(samples):,}; {machine['cpu']}, "
        f"{kept.profile.conditions.threads} thread(s), {kept.created_utc[:10]}"
    )


def details(kind: str, name: str) -> dict[str, Any]:
    """Name, text and fields of one plugin, or the values of one target or profile.

    Raises:
        UnknownPluginError: No such plugin.
        MissingDependencyError: The plugin needs a package that is not installed.
        RecipeError: No such target or profile.
    """
    from dataclasses import asdict

    from edgekd.core.describe import fields_of, summary_of

    if kind == "profiles":
        return _profile_details(name)
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


def _profile_details(name: str) -> dict[str, Any]:
    from edgekd.core.config import nearest
    from edgekd.core.errors import RecipeError

    found = {kept.file: kept for kept in _shipped_profiles()}
    if name not in found:
        raise RecipeError(f"No profile {name!r} is shipped{nearest(name, list(found))}")
    kept = found[name]
    values = kept.profile.model_dump(mode="json", exclude={"samples_ns"})
    return {"kind": "profiles", "name": name, "text": _profile_line(kept), "values": values}


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
