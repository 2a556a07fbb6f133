from __future__ import annotations

import importlib
import inspect
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

from edgekd.cli.list import PLUGIN_KINDS, registry
from edgekd.core.errors import MissingDependencyError
from edgekd.core.registry import Registry

if TYPE_CHECKING:
    from tests.architecture.conftest import Tree

REGISTRIES: dict[str, Registry[Any]] = {kind: registry(kind) for kind in PLUGIN_KINDS}
PLUGINS = [(kind, name) for kind, r in REGISTRIES.items() for name in r.names()]


def get(kind: str, name: str) -> Any:
    """The plugin's class; skips where an optional package is missing."""
    try:
        return REGISTRIES[kind].get(name)
    except MissingDependencyError as e:
        pytest.skip(e.failed)


@pytest.mark.parametrize(("kind", "name"), PLUGINS)
def test_a_plugin_registers_one_class_under_the_name_of_its_module(kind: str, name: str) -> None:
    found = REGISTRIES[kind]
    cls = get(kind, name)
    assert cls.__module__ == f"{found.package}.{name}"
    module = importlib.import_module(cls.__module__)
    classes = [c for c in vars(module).values() if inspect.isclass(c)]
    mine = [c for c in classes if c in found._classes.values() and c.__module__ == cls.__module__]
    assert mine == [cls]


@pytest.mark.parametrize(("kind", "name"), PLUGINS)
def test_a_plugin_is_frozen_strict_and_leaves_the_word_name_to_the_recipe(
    kind: str, name: str
) -> None:
    cls = get(kind, name)
    assert cls.__doc__
    if not issubclass(cls, BaseModel):
        assert not inspect.signature(cls).parameters  # built without settings
        return
    assert cls.model_config.get("frozen")
    assert cls.model_config.get("extra") == "forbid"
    assert "name" not in cls.model_fields


def test_every_registry_of_the_package_is_listed(tree: Tree) -> None:
    listed = {id(r) for r in REGISTRIES.values()}
    count = 0
    for path in tree.package:
        if path.name != "_contract.py":
            continue
        parts = path.relative_to(tree.root).with_suffix("").parts
        module = importlib.import_module(".".join(parts))
        found = [v for v in vars(module).values() if isinstance(v, Registry)]
        count += len(found)
        assert all(id(r) in listed for r in found), path
    assert count >= len(REGISTRIES)


def test_kinds_have_names_of_their_own() -> None:
    assert len({r.kind for r in REGISTRIES.values()}) == len(REGISTRIES)
    assert len({r.package for r in REGISTRIES.values()}) == len(REGISTRIES)
