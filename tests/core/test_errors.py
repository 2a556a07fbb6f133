from __future__ import annotations

import copy

import pytest

from edgekd.core.errors import EdgekdError, MissingDependencyError, RecipeError


def test_a_message_has_its_four_parts_one_a_line() -> None:
    error = RecipeError("a.yaml is odd.", expected="evenness", got="3", todo="add one")
    assert str(error) == error.message
    assert error.message.splitlines() == [
        "a.yaml is odd.",
        "  expected: evenness",
        "  got:      3",
        "  to do:    add one",
    ]


def test_empty_parts_are_left_out() -> None:
    assert str(EdgekdError("It broke.", got="x")) == "It broke.\n  got:      x"
    assert str(EdgekdError("It broke.")) == "It broke."


def test_an_error_keeps_its_parts_when_it_is_rebuilt_as_between_processes() -> None:
    error = RecipeError("a", expected="b", got="c", todo="d")
    back = copy.copy(error)  # takes the same way as pickling
    assert (type(back), back.message, back.todo) == (RecipeError, error.message, "d")


def test_a_missing_module_of_our_own_is_not_blamed_on_the_user() -> None:
    ours = ModuleNotFoundError("no", name="edgekd.core.nothing")
    theirs = ModuleNotFoundError("no", name="edgekd_plugins.x")
    assert not MissingDependencyError.is_about_others(ours)
    assert MissingDependencyError.is_about_others(theirs)
    assert MissingDependencyError.is_about_others(ImportError("libx.so"))


@pytest.mark.parametrize(
    ("module", "command"),
    [
        ("sklearn.datasets", "pip install scikit-learn"),
        ("PIL", "pip install pillow"),
        ("ai_edge_litert.interpreter", "pip install 'edgekd[litert]'"),
        ("executorch", "pip install 'edgekd[executorch]'"),
        ("tensorrt_rtx", "pip install 'edgekd[tensorrt-rtx]'"),
        ("openvino.frontend", "pip install openvino"),
    ],
)
def test_the_command_names_what_pip_knows(module: str, command: str) -> None:
    error = ModuleNotFoundError("no", name=module)
    assert MissingDependencyError.from_import_error(error, user="X").todo == command
