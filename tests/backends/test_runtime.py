from __future__ import annotations

import subprocess
import sys
from importlib import metadata

import pytest

from edgekd.backends._runtime import check_runtime
from edgekd.core.errors import RecipeError, UnknownPluginError, UnsupportedError
from edgekd.core.target import Target, load_target

TARGET = load_target("x86-onnxruntime-fp32")


def with_runtime(runtime: str, **changes: str) -> Target:
    return TARGET.model_copy(update={"runtime": runtime, **changes})


def test_a_runtime_in_range_gives_its_version() -> None:
    assert check_runtime(TARGET) == metadata.version("onnxruntime")


def test_a_runtime_out_of_range() -> None:
    with pytest.raises(UnsupportedError) as caught:
        check_runtime(with_runtime(">=900"))
    error = caught.value
    assert (
        error.failed == "The target 'x86-onnxruntime-fp32' needs another version of onnxruntime."
    )
    assert error.expected == "onnxruntime >=900"
    assert error.got[0].isdigit()
    assert error.todo == "pip install 'onnxruntime>=900'"
    assert error.exit_code == 4


def test_a_range_that_is_none() -> None:
    with pytest.raises(RecipeError, match="has no valid runtime version") as caught:
        check_runtime(with_runtime("newest"))
    assert caught.value.got == "'newest'"


def test_an_unknown_backend() -> None:
    with pytest.raises(UnknownPluginError, match="Did you mean 'openvino'") as caught:
        check_runtime(with_runtime("", backend="openvin"))
    assert caught.value.failed.startswith("The target 'x86-onnxruntime-fp32' cannot run. No ")


@pytest.mark.parametrize(
    ("package", "target", "install"),
    [
        ("openvino", "x86-openvino-fp32", "pip install openvino"),
        ("tensorrt_rtx", "rtx-tensorrt-int8", "pip install 'edgekd[tensorrt-rtx]'"),
        ("ai_edge_litert", "phone-litert-int8", "pip install 'edgekd[litert]'"),
        ("executorch", "phone-executorch-int8", "pip install 'edgekd[executorch]'"),
    ],
)
def test_a_runtime_that_is_not_installed(package: str, target: str, install: str) -> None:
    """In a process of its own, where the import really fails."""
    program = f"""
import importlib.abc, sys

class Hide(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == {package!r}:
            raise ModuleNotFoundError("No module named {package!r}", name=name)

sys.meta_path.insert(0, Hide())
from edgekd.backends._runtime import check_runtime
from edgekd.core.errors import MissingDependencyError
from edgekd.core.target import load_target

check_runtime(load_target("x86-onnxruntime-fp32"))  # the other runtime is not affected
try:
    check_runtime(load_target({target!r}))
except MissingDependencyError as e:
    print(e.exit_code, e.message)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(f"3 The target {target!r} cannot run here. ")
    assert f"needs the package {package!r}" in done.stdout
    assert install in done.stdout
