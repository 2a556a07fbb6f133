from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import edgekd
from edgekd.core import errors

if TYPE_CHECKING:
    from tests.architecture.conftest import Tree

#: too large to be installed for every run of the tests
OPTIONAL = {"ai_edge_litert", "executorch", "tensorrt_rtx"}
TREE_LINE = re.compile(r"^( *)(\w+Error)(?:\s+(.*?))?(?:\s+exit (\d+))?$")


def test_every_public_name_is_there() -> None:
    assert sorted(edgekd.__all__) == edgekd.__all__
    for name in edgekd.__all__:
        assert getattr(edgekd, name) is not None


def test_there_is_no_other_public_name() -> None:
    # in a process of its own: here other tests have imported submodules into the namespace
    code = "import edgekd, json; print(json.dumps(sorted(n for n in dir(edgekd) if n[0] != '_')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    language = {"annotations", "TYPE_CHECKING", "Any"}
    public = {n for n in edgekd.__all__ if not n.startswith("_")}
    assert set(json.loads(done.stdout)) - language <= public


def test_public_names_are_documented() -> None:
    for name in set(edgekd.__all__) - {"__version__"}:
        assert len(inspect.getdoc(getattr(edgekd, name)) or "") > 20


def test_an_unknown_name_is_an_attribute_error_that_lists_them() -> None:
    with pytest.raises(AttributeError, match="module 'edgekd' has no attribute 'compres'; it has"):
        _ = edgekd.compres


def test_the_version_is_written_once_and_once_more(tree: Tree) -> None:
    project = tomllib.loads((tree.root / "pyproject.toml").read_text())["project"]
    assert project["version"] == edgekd.__version__ == importlib.metadata.version("edgekd")


def test_every_module_imports_and_says_what_it_is(tree: Tree) -> None:
    for path in tree.package:
        parts = path.relative_to(tree.root).with_suffix("").parts
        name = ".".join(parts).removesuffix(".__init__")
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as e:
            if e.name in OPTIONAL:  # of an extra that is not installed here
                continue
            raise
        assert len(module.__doc__ or "") > 10, name


def test_the_tree_of_errors_is_the_one_drawn_above_it() -> None:
    drawn: dict[str, tuple[str | None, int | None]] = {}
    parents: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = TREE_LINE.match(line)
        if not match or not line.startswith("    "):
            continue
        depth = len(match[1]) // 2 - 2
        del parents[depth:]
        drawn[match[2]] = (parents[-1] if parents else None, int(match[4]) if match[4] else None)
        parents.append(match[2])
    real = {
        name: (
            None if cls is errors.EdgekdError else cls.__bases__[0].__name__,
            None if cls is errors.EdgekdError else cls.exit_code,
        )
        for name, cls in vars(errors).items()
        if inspect.isclass(cls) and issubclass(cls, errors.EdgekdError)
    }
    assert drawn == real
    assert errors.EdgekdError.exit_code == errors.INTERNAL_EXIT_CODE == 70
    assert "exits with 70" in (errors.__doc__ or "")


def test_exit_codes_are_the_promised_ones() -> None:
    codes = {cls.__name__: cls.exit_code for cls in errors.EdgekdError.__subclasses__()}
    assert codes == {
        "BudgetError": 1,
        "RecipeError": 2,
        "MissingDependencyError": 3,
        "UnsupportedError": 4,
        "ParityError": 5,
        "DeviceError": 6,
        "InconclusiveError": 7,
    }


def test_the_folders_that_ship_in_the_wheel_hold_files_that_git_knows(tree: Tree) -> None:
    # git keeps no empty folder, and a missing one breaks `pip install .` in a fresh clone
    settings = tomllib.loads((tree.root / "pyproject.toml").read_text())["tool"]["hatch"]
    for folder in settings["build"]["targets"]["wheel"]["force-include"]:
        assert any(p.is_relative_to(tree.root / folder) for p in tree.files), folder


def test_the_package_says_that_it_is_typed(tree: Tree) -> None:
    assert Path(edgekd.__file__).with_name("py.typed").is_file()
    assert tree.root / "edgekd" / "py.typed" in tree.files
