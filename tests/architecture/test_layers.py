from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.architecture.conftest import Tree


def test_imports_point_down_only(tree: Tree) -> None:
    command = Path(sys.executable).with_name("lint-imports")
    if not command.is_file():
        pytest.skip("import-linter is not installed; it comes with pip install '.[dev]'")
    done = subprocess.run(
        [command, "--no-cache"], cwd=tree.root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    assert "layers KEPT" in done.stdout
    assert "core and numerics are light KEPT" in done.stdout


def imported(body: list[ast.stmt]) -> Iterator[str]:
    """Names that importing the module imports: not inside functions, not for types only."""
    for node in body:
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{a.name}" for a in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from imported(node.orelse)
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for part in ("body", "orelse", "finalbody"):
                yield from imported(getattr(node, part, []))


def test_no_module_imports_itself_round_a_corner(tree: Tree) -> None:
    modules = {
        ".".join(p.relative_to(tree.root).with_suffix("").parts).removesuffix(".__init__"): p
        for p in tree.package
    }
    graph: dict[str, set[str]] = {}
    for name, path in modules.items():
        needs = set()
        for target in imported(tree.parse(path).body):
            while target and target not in modules:
                target = target.rpartition(".")[0]
            needs |= {target} - {"", name}
        graph[name] = needs
    assert sum(map(len, graph.values())) > 100  # the walk did find imports
    try:
        order = list(graphlib.TopologicalSorter(graph).static_order())
    except graphlib.CycleError as e:
        pytest.fail(" imports ".join(e.args[1]))
    assert len(order) == len(modules)


BARE_EDGEKD = """
import importlib, json, pkgutil, sys
BLOCKED = {
    "torch", "onnx", "onnxruntime", "openvino", "tensorrt_rtx", "executorch", "ai_edge_litert",
    "sklearn", "altair", "scipy",
}
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
for package in ("edgekd.core", "edgekd.numerics", "edgekd.cli"):
    folder = importlib.import_module(package).__path__
    for module in pkgutil.iter_modules(folder):
        importlib.import_module(f"{package}.{module.name}")
for contract in ("tasks", "students", "backends", "distill.objectives", "quantize.quantizers",
                 "profile.transports"):
    importlib.import_module(f"edgekd.{contract}._contract")
print(json.dumps(sorted(m for m in sys.modules if m.partition(".")[0] == "edgekd")))
"""


def test_core_numerics_cli_and_contracts_need_no_framework() -> None:
    done = subprocess.run(
        [sys.executable, "-c", BARE_EDGEKD], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "edgekd.core.registry" in done.stdout


def test_every_package_that_is_imported_is_declared(tree: Tree) -> None:
    # a dependency of a dependency may go away with its next release
    called = {"sklearn": "scikit-learn", "PIL": "pillow", "ruamel": "ruamel.yaml"}
    called |= {
        "pydantic_core": "pydantic",
        "vl_convert": "vl-convert-python",
        "google": "protobuf",
        "tensorrt_rtx": "tensorrt-rtx",
        "pynvml": "nvidia-ml-py",
        "ai_edge_litert": "ai-edge-litert",
    }
    project = tomllib.loads((tree.root / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    lines = [*project["dependencies"], *(line for extra in extras for line in extra)]
    declared = {re.split(r"[\[<>=!~ ]", line)[0] for line in lines}
    used = set()
    for path in tree.package:
        for node in ast.walk(tree.parse(path)):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""] if not node.level else []
            used |= {name.partition(".")[0] for name in names}
    outside = used - set(sys.stdlib_module_names) - {"edgekd", ""}
    assert {"torch", "pydantic"} <= outside
    assert {called.get(name, name) for name in outside} - declared == set()
