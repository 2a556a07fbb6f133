"""Registries over a package written for the test, and over a distribution installed for it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from edgekd.core.config import Config, validate
from edgekd.core.errors import MissingDependencyError, RecipeError, UnknownPluginError
from edgekd.core.registry import Registry

KIND = "from edgekd.core.registry import Registry\nGIZMOS = Registry('gizmo', 'gizmos')\n"
HEAD = """from gizmos._contract import GIZMOS
from edgekd.core.config import Config
"""
PLUGINS = {
    "__init__": "",
    "_contract": KIND,
    "_helper": "raise RuntimeError('private files are nobody\\'s business')",
    "small": '"""A small one.\n\nMore.\n"""\n'
    + HEAD
    + "@GIZMOS.register\nclass Small(Config):\n    width: int = 1\n    depth: int = 2\n",
    "plain": HEAD + "@GIZMOS.register\nclass Plain:\n    pass\n",
    "needy": "import a_package_nobody_has\n" + HEAD,
    "needs_sklearn": "raise ModuleNotFoundError('no', name='sklearn.datasets')",
    "broken_library": "raise ImportError('libx.so.3: cannot open shared object', name='libx')",
    "our_bug": "import edgekd.core.nothing_of_the_kind\n",
    "our_other_bug": "from edgekd.core.errors import Nothing\n",
    "forgetful": HEAD,
}


@pytest.fixture
def gizmos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry[Any]]:
    folder = tmp_path / "path" / "gizmos"
    folder.mkdir(parents=True)
    for name, text in PLUGINS.items():
        (folder / f"{name}.py").write_text(text)
    (folder / "subpackage").mkdir()
    (folder / "subpackage" / "__init__.py").write_text("")
    (folder / "data.json").write_text("{}")
    monkeypatch.syspath_prepend(folder.parent)
    before = set(sys.modules)
    from gizmos._contract import GIZMOS  # type: ignore[import-not-found]

    yield GIZMOS
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("gizmos", "outsider"):
            del sys.modules[name]


@pytest.fixture
def install(gizmos: Registry[Any], tmp_path: Path) -> Callable[..., None]:
    """Install a distribution with entry points ``name=module`` and the text of its modules."""

    def call(entries: dict[str, str], **modules: str) -> None:
        for module, text in modules.items():
            (tmp_path / "path" / f"{module}.py").write_text(text)
        info = tmp_path / "path" / "outsider-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outsider\nVersion: 1.0\n")
        lines = "\n".join(f"{name} = {value}" for name, value in entries.items())
        (info / "entry_points.txt").write_text(f"[gizmos]\n{lines}\n")

    return call


def test_the_folder_is_the_catalogue_and_listing_imports_no_plugin(gizmos: Registry[Any]) -> None:
    public = sorted(name for name in PLUGINS if not name.startswith("_"))
    assert gizmos.names() == public
    assert list(gizmos.summaries()) == public
    assert gizmos.summaries()["small"] == "A small one."
    assert [m for m in sys.modules if m.startswith("gizmos.") and m != "gizmos._contract"] == []


def test_get_imports_one_module(gizmos: Registry[Any]) -> None:
    assert gizmos.get("small").__name__ == "Small"
    assert gizmos.get("small") is gizmos.get("small")
    assert "gizmos.small" in sys.modules
    assert "gizmos.plain" not in sys.modules


def test_an_unknown_name_gives_the_nearest_and_the_full_list(gizmos: Registry[Any]) -> None:
    with pytest.raises(UnknownPluginError) as caught:
        gizmos.get("smal")
    known = ", ".join(gizmos.names())
    assert caught.value.message == f"No gizmo named 'smal'. Did you mean 'small'? Known: {known}"
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("name", ["_helper", "_contract", "subpackage", "small.x", "", "../small"])
def test_nothing_else_is_importable_by_name(gizmos: Registry[Any], name: str) -> None:
    with pytest.raises(UnknownPluginError):
        gizmos.get(name)


def test_a_missing_package_is_named_with_the_command_that_brings_it(gizmos: Registry[Any]) -> None:
    with pytest.raises(MissingDependencyError) as caught:
        gizmos.get("needy")
    assert caught.value.message.splitlines() == [
        "The gizmo 'needy' needs the package 'a_package_nobody_has', which is not installed.",
        "  to do:    pip install a_package_nobody_has",
    ]
    assert caught.value.exit_code == 3
    with pytest.raises(MissingDependencyError, match="pip install scikit-learn"):
        gizmos.get("needs_sklearn")


def test_a_package_that_cannot_be_loaded_is_told_from_a_missing_one(gizmos: Registry[Any]) -> None:
    with pytest.raises(MissingDependencyError, match="installed but cannot be imported") as caught:
        gizmos.get("broken_library")
    assert caught.value.got == "libx.so.3: cannot open shared object"
    assert caught.value.todo.startswith("install libx again")


def test_a_broken_plugin_breaks_no_other(gizmos: Registry[Any]) -> None:
    with pytest.raises(MissingDependencyError):
        gizmos.get("needy")
    assert gizmos.build("small").width == 1


@pytest.mark.parametrize("name", ["our_bug", "our_other_bug"])
def test_our_own_bug_surfaces_as_itself(gizmos: Registry[Any], name: str) -> None:
    with pytest.raises(ImportError, match="edgekd"):
        gizmos.get(name)


def test_a_module_that_registers_nothing_is_our_own_bug(gizmos: Registry[Any]) -> None:
    with pytest.raises(ValueError, match=r"gizmos\.forgetful registers no gizmo"):
        gizmos.get("forgetful")


def test_two_classes_of_one_name_raise(gizmos: Registry[Any]) -> None:
    small = gizmos.get("small")

    class Other:
        __module__ = small.__module__

    class Small:  # the same class name from another package
        __module__ = "elsewhere.small"
        __qualname__ = "Small"

    for cls in (Other, Small):
        with pytest.raises(ValueError, match=r"gizmo 'small' is already registered as gizmos\.sm"):
            gizmos.register(cls)
    assert gizmos.register(small) is small  # a reloaded module is no other class
    assert gizmos.get("small") is small


def test_build_takes_a_name_or_a_mapping(gizmos: Registry[Any]) -> None:
    assert gizmos.build("small").depth == 2
    built = gizmos.build({"name": "small", "width": 7})
    assert built.width == 7
    assert gizmos.spec_of(built) == {"name": "small", "width": 7, "depth": 2}
    assert gizmos.build(gizmos.spec_of(built)) == built
    assert type(gizmos.build("plain")).__name__ == "Plain"


@pytest.mark.parametrize(
    ("spec", "failed", "got"),
    [
        (
            {"name": "small", "widht": 1},
            "The gizmo 'small' is not valid.",
            "widht: no such field. Did you mean 'width'? Known: depth, width",
        ),
        (
            {"name": "small", "width": "x"},
            "The gizmo 'small' is not valid.",
            "width: Input should be a valid integer, unable to parse string as an integer, "
            "got 'x'",
        ),
        ({"name": "small", 3: 4}, "The gizmo 'small' is not valid.", "3: Keys should be strings"),
        (
            {"name": "plain", "width": 1},
            "The gizmo 'plain' is not valid.",
            "width: no such field; the gizmo 'plain' has none",
        ),
        ({"width": 1}, "The gizmo None is not valid.", "name: a gizmo needs its name, one of "),
        ({"name": 3}, "The gizmo 3 is not valid.", "name: a gizmo needs its name, one of "),
        (None, "The gizmo None is not valid.", "a gizmo is given by its name or as a mapping"),
        ([1], "The gizmo [1] is not valid.", "a gizmo is given by its name or as a mapping, got"),
    ],
)
def test_a_wrong_spec_is_explained(
    gizmos: Registry[Any], spec: Any, failed: str, got: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        gizmos.build(spec)
    assert caught.value.failed == failed
    assert caught.value.got.startswith(got)


def recipe_of(gizmos: Registry[Any]) -> type[Config]:
    class Recipe(Config):
        parts: tuple[gizmos.field(), ...] = ()  # type: ignore[valid-type]
        maybe: gizmos.field(optional=True) = None  # type: ignore[valid-type]

    return Recipe


def test_a_recipe_field_builds_the_plugin_and_is_written_back(gizmos: Registry[Any]) -> None:
    recipe = recipe_of(gizmos)
    made: Any = recipe.model_validate({"parts": ["small", {"name": "small", "width": 3}]})
    assert [p.width for p in made.parts] == [1, 3]
    assert made.maybe is None
    plain = made.model_dump()
    assert plain["parts"][1] == {"name": "small", "width": 3, "depth": 2}
    assert recipe.model_validate(plain) == made
    assert recipe.model_validate({"maybe": made.parts[1]}).maybe is made.parts[1]  # type: ignore[attr-defined]


def test_complaints_about_a_plugin_keep_the_path_in_the_recipe(gizmos: Registry[Any]) -> None:
    value = {"parts": ["small", {"name": "small", "widht": 1}, "smal", 3], "maybe": {"width": 1}}
    with pytest.raises(RecipeError) as caught:
        validate(recipe_of(gizmos), value, source="my.yaml")
    lines = [line.strip() for line in caught.value.got.splitlines()]
    assert [line.partition(": ")[0] for line in lines] == [
        "parts.1.widht",
        "parts.2.name",
        "parts.3",
        "maybe.name",
    ]
    assert lines[0].endswith("no such field. Did you mean 'width'? Known: depth, width")
    assert "No gizmo named 'smal'. Did you mean 'small'?" in lines[1]
    assert "is given by its name or as a mapping, got 3" in lines[2]


def test_a_missing_package_in_a_recipe_keeps_its_own_exit_code(gizmos: Registry[Any]) -> None:
    with pytest.raises(MissingDependencyError, match="a_package_nobody_has"):
        validate(recipe_of(gizmos), {"parts": ["needy"]}, source="my.yaml")


OUTSIDE = HEAD + "@GIZMOS.register\nclass Outside(Config):\n    width: int = 5\n"


def test_an_installed_package_brings_a_plugin(gizmos: Registry[Any], install: Any) -> None:
    install({"outsider": "outsider:Outside"}, outsider=OUTSIDE)
    assert "outsider" in gizmos.names()
    assert gizmos.summaries()["outsider"] == "from outsider"
    assert "outsider" not in sys.modules
    assert gizmos.build("outsider").width == 5


def test_an_installed_package_cannot_take_a_name_of_ours(
    gizmos: Registry[Any], install: Any
) -> None:
    install({"small": "outsider:Outside"}, outsider=OUTSIDE)
    with pytest.raises(RecipeError, match="under a name of edgekd's own") as caught:
        gizmos.get("small")
    assert caught.value.got == "small = outsider:Outside"
    assert "rename its module and entry point" in caught.value.todo


def test_an_installed_package_that_registers_another_name_is_explained(
    gizmos: Registry[Any], install: Any
) -> None:
    install({"fancy": "outsider:Outside"}, outsider=OUTSIDE)
    with pytest.raises(RecipeError, match="'fancy' does not register it") as caught:
        gizmos.get("fancy")
    assert caught.value.expected == "a module called fancy.py with a class under @register"


def test_a_plugin_whose_package_is_half_removed_is_explained(
    gizmos: Registry[Any], install: Any
) -> None:
    install({"gone": "a_module_that_is_gone"})
    with pytest.raises(MissingDependencyError, match="'a_module_that_is_gone'"):
        gizmos.get("gone")


def test_adapters_show_plugins_as_json(gizmos: Registry[Any]) -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(gizmos.field())
    raw = adapter.dump_json(adapter.validate_python("small"))
    assert raw == b'{"name":"small","width":1,"depth":2}'
