"""Habits that no linter keeps: f-strings, small files, tests that can fail, no stray paths."""

from __future__ import annotations

import ast
import re
import tomllib
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.architecture.conftest import Tree

MAX_LINES = 400
PLACEHOLDER = re.compile(r"\{[a-zA-Z_][\w.]*(?:\[[^\]]*\])?(?:![rsa])?(?::[^{}\s]*)?\}")
#: a home folder, or a place that exists on one machine only
LOCAL_PATH = re.compile(
    r"(?<![\w.:/~-])/(?:home|root|Users|work|workspace|mnt|srv)/(?!somebody|you\b)[\w.-]+"
)
UNFINISHED = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|X" + r"XX)\b")
CHECKS = re.compile(
    r"\bassert\b|\braises\b|\bwarns\b|\bfail\(|\bbenchmark\(|\b(?:assert|check)\w*\("
)
OTHER_TOOL_FILES = {
    "setup.py", "setup.cfg", "tox.ini", "pytest.ini", ".pytest.ini", "mypy.ini", ".mypy.ini",
    "ruff.toml", ".ruff.toml", ".flake8", ".pylintrc", ".coveragerc", ".importlinter",
    "noxfile.py", "requirements.txt", "Makefile",
}  # fmt: skip


def forgotten_prefixes(module: ast.Module) -> list[int]:
    """Lines of plain strings with ``{name}`` inside a raise, an assert or an error's call."""
    formatted = {
        id(part)
        for node in ast.walk(module)
        if isinstance(node, ast.JoinedStr)
        for part in ast.walk(node)
    }
    return [
        part.lineno
        for node in ast.walk(module)
        if isinstance(node, ast.Raise | ast.Assert)
        for part in ast.walk(node)
        if isinstance(part, ast.Constant)
        and isinstance(part.value, str)
        and PLACEHOLDER.search(part.value)
        and id(part) not in formatted
        and ".format(" not in ast.unparse(node)
    ]


def test_the_check_for_forgotten_prefixes_finds_them() -> None:
    bad = 'raise E("got {value!r}")\nassert x, "at {i}"\nraise E("a" "{a.b}", got="{c:.3f}")\n'
    good = (
        'raise E(f"got {value!r}")\nraise E("a {} {{b}}".format(1))\nraise E("json {\\"a\\": 1}")'
    )
    assert forgotten_prefixes(ast.parse(bad)) == [1, 2, 3, 3]
    assert forgotten_prefixes(ast.parse(good)) == []


def test_every_message_with_braces_is_an_f_string(tree: Tree) -> None:
    found = [
        f"{tree.name(path)}:{line}"
        for path in tree.python
        for line in forgotten_prefixes(tree.parse(path))
        if path.name != "test_habits.py"
    ]
    assert found == []


def test_no_file_is_longer_than_400_lines(tree: Tree) -> None:
    lengths = {p: len(p.read_text(encoding="utf-8").splitlines()) for p in tree.python}
    assert {tree.name(p): n for p, n in lengths.items() if n > MAX_LINES} == {}


def test_half_of_the_package_is_shorter_than_150_lines(tree: Tree) -> None:
    lengths = sorted(len(p.read_text(encoding="utf-8").splitlines()) for p in tree.package)
    assert lengths[len(lengths) // 2] < 150


def test_there_is_no_room_for_everything_else(tree: Tree) -> None:
    stems = {p.stem.strip("_") for p in tree.python} | {p.parent.name for p in tree.python}
    assert stems & {"utils", "util", "helpers", "misc", "common"} == set()


def test_nothing_is_left_unfinished(tree: Tree) -> None:
    found = [tree.name(p) for p in tree.texts if UNFINISHED.search(p.read_text(encoding="utf-8"))]
    assert found == []


def test_nothing_pretends_to_be_implemented(tree: Tree) -> None:
    names = {
        f"{tree.name(path)}:{node.lineno}"
        for path in tree.package
        for node in ast.walk(tree.parse(path))
        if isinstance(node, ast.Name) and node.id == "NotImplementedError"
    }
    assert names == set()


def test_every_except_names_what_it_catches(tree: Tree) -> None:
    found = [
        f"{tree.name(path)}:{node.lineno}"
        for path in tree.python
        for node in ast.walk(tree.parse(path))
        if isinstance(node, ast.ExceptHandler) and node.type is None
    ]
    assert found == []


def test_no_path_of_one_machine_is_written_down(tree: Tree) -> None:
    found = [
        f"{tree.name(path)}: {match[0]}"
        for path in tree.texts
        if path.name != "test_habits.py"
        for match in LOCAL_PATH.finditer(path.read_text(encoding="utf-8"))
    ]
    assert found == []
    assert LOCAL_PATH.search("see /home/jane/x")
    assert not LOCAL_PATH.search("https://example.org/home/x, ./work/x, /etc/passwd, /home/you/x")


def test_every_test_can_fail(tree: Tree) -> None:
    # by a check of its own, or through a helper of the tests that has one
    functions = [
        (path, node, ast.unparse(node))
        for path in tree.python
        if tree.name(path).startswith(("tests/", "edgekd/testing/"))
        for node in ast.walk(tree.parse(path))
        if isinstance(node, ast.FunctionDef)
    ]
    helpers = {node.name for _, node, text in functions if CHECKS.search(text)}
    silent = [
        f"{tree.name(path)}:{node.lineno} {node.name}"
        for path, node, text in functions
        if node.name.startswith("test_")
        and not CHECKS.search(text)
        and not helpers & set(re.findall(r"\w+(?=\()", text.partition(":\n")[2]))
    ]
    assert silent == []


def test_names_of_tests_are_unique_within_their_file(tree: Tree) -> None:
    for path in tree.python:
        names = [n.name for n in tree.parse(path).body if isinstance(n, ast.FunctionDef)]
        assert len(names) == len(set(names)), tree.name(path)


def test_all_tool_settings_are_in_pyproject(tree: Tree) -> None:
    assert {p.name for p in tree.files} & OTHER_TOOL_FILES == set()
    settings = tomllib.loads((tree.root / "pyproject.toml").read_text())["tool"]
    assert {"ruff", "mypy", "pytest", "importlinter"} <= settings.keys()
    assert settings["pytest"]["ini_options"]["filterwarnings"][0] == "error"
    assert settings["mypy"]["strict"]


@pytest.mark.parametrize("line", ["tests/**", "bench/**", "edgekd/cli/**"])
def test_exceptions_from_the_linter_are_for_folders_that_exist(tree: Tree, line: str) -> None:
    settings = tomllib.loads((tree.root / "pyproject.toml").read_text())["tool"]["ruff"]
    assert line in settings["lint"]["per-file-ignores"]
    assert (tree.root / line.removesuffix("/**")).is_dir()
