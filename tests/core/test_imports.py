from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from edgekd.core.errors import DataError, RecipeError
from edgekd.core.imports import call_attribute, importable


def call(path: str, folder: Path, **kwargs: object) -> object:
    return call_attribute(path, kwargs, folder, what="thing", field="x.factory")


def message(path: str, folder: Path, **kwargs: object) -> str:
    with pytest.raises(RecipeError) as error:
        call(path, folder, **kwargs)
    return str(error.value)


def test_the_folder_comes_first_and_nested_names_work(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mine.py").write_text(
        "import helper_of_mine\nclass A:\n  @staticmethod\n"
        "  def make(n): import late_helper; return helper_of_mine.K + late_helper.K + n\n"
    )
    (tmp_path / "helper_of_mine.py").write_text("K = 30")
    (tmp_path / "late_helper.py").write_text("K = 10")
    before = list(sys.path)
    assert call("models.mine:A.make", tmp_path, n=2) == 42
    assert sys.path == before


def test_installed_modules_are_found_too(tmp_path: Path) -> None:
    assert call("json:loads", tmp_path, s="[1]") == [1]


@pytest.mark.parametrize("package", [True, False], ids=["package", "namespace"])
def test_two_folders_with_modules_of_one_name(package: bool, tmp_path: Path) -> None:
    for name in ("one", "two"):
        folder = tmp_path / name / "namesake"
        folder.mkdir(parents=True)
        if package:
            (folder / "__init__.py").write_text("")
        (folder / "inner.py").write_text(f"def who(): return {name!r}")
    for name in ("one", "two", "one"):
        assert call("namesake.inner:who", tmp_path / name) == name


def test_a_file_must_not_hide_an_installed_package(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("def loads(s): return 'mine'")
    found = message("json:loads", tmp_path, s="[]")
    assert f"{tmp_path / 'json.py'} carries the name of a Python package" in found
    assert "to do:    rename the file" in found
    assert sys.modules["json"] is json


def test_an_error_inside_leaves_the_path_as_it_was(tmp_path: Path) -> None:
    before = list(sys.path)
    inside = []

    def fail() -> None:
        with importable(tmp_path):
            inside.append(sys.path[0])
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert inside == [str(tmp_path.resolve())]
    assert sys.path == before


def test_a_module_of_another_folder_does_not_stand_in_for_a_missing_one(tmp_path: Path) -> None:
    (tmp_path / "only_here.py").write_text("def build(): return 1")
    (tmp_path / "empty").mkdir()
    assert call("only_here:build", tmp_path) == 1
    assert "there is no Python module 'only_here'" in message(
        "only_here:build", tmp_path / "empty"
    )


@pytest.mark.parametrize(
    "path", ["models", "models.build", ":build", "models:", "a b:c", "../m:f"]
)
def test_something_else_than_an_attribute(path: str, tmp_path: Path) -> None:
    assert message(path, tmp_path) == (
        "x.factory does not name a Python attribute.\n"
        "  expected: module:attribute, e.g. models:build\n"
        f"  got:      {path!r}"
    )


def test_a_module_that_is_not_there(tmp_path: Path) -> None:
    assert message("not_there.at_all:build", tmp_path) == (
        "x.factory: there is no Python module 'not_there'.\n"
        f"  expected: not_there.py in {tmp_path} or an installed package"
    )


def test_an_attribute_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "attributes_of_mine.py").write_text("def build(): ...")
    assert (
        "x.factory: 'attributes_of_mine' has no 'biuld'. Did you mean 'build'? Known: build"
        in message("attributes_of_mine:biuld", tmp_path)
    )


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("def build(:", "SyntaxError: invalid syntax (broken_module.py, line 1)"),
        ("x = 1\nraise RuntimeError('no\\nGPU')", "RuntimeError: no (broken_module.py, line 2)"),
        ("from json import nothing", "ImportError: cannot import name 'nothing' from 'json'"),
    ],
)
def test_a_module_that_fails(text: str, found: str, tmp_path: Path) -> None:
    (tmp_path / "broken_module.py").write_text(text)
    line = message("broken_module:build", tmp_path)
    assert "x.factory: the module 'broken_module' failed while it was imported." in line
    assert found in line


def test_a_call_with_other_arguments(tmp_path: Path) -> None:
    (tmp_path / "callable_of_mine.py").write_text("def build(width): ...")
    found = message("callable_of_mine:build", tmp_path, widht=3)
    assert "got an unexpected keyword argument 'widht'" in found
    assert "call it yourself in Python with {'widht': 3} to see the traceback" in found


def test_errors_of_our_own_keep_their_words(tmp_path: Path) -> None:
    (tmp_path / "raising.py").write_text(
        "from edgekd.core.errors import DataError\ndef build(): raise DataError('mine')"
    )
    with pytest.raises(DataError, match=r"^mine$"):
        call("raising:build", tmp_path)
