"""What the documents promise: commands that parse, links and files that exist."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typer
import typer.main

from edgekd.cli.list import PLUGIN_KINDS, registry
from edgekd.cli.main import app
from edgekd.core.describe import fields_of
from edgekd.distill.objectives._contract import OBJECTIVES
from edgekd.testing.objectives import CHECKS

if TYPE_CHECKING:
    from tests.architecture.conftest import Tree

FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```\s*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
NAMED_PATH = re.compile(r"`((?:edgekd|targets|profiles|tests|bench|\.ci)/[\w./-]*)")
SHELLS = {"bash", "sh", "shell", "console", ""}
_UsageError: type[Exception] = typer.BadParameter.__bases__[0]


def commands(text: str) -> list[str]:
    """The `edgekd …` commands in the fenced shell blocks of a document."""
    found = []
    for language, block in FENCE.findall(text):
        if language not in SHELLS:
            continue
        for line in block.replace("\\\n", " ").splitlines():
            for part in re.split(r"&&|\|\||[|;]", line.removeprefix("$ ").partition(" #")[0]):
                words = part.split()
                if words and words[0].rpartition("/")[2] == "edgekd":
                    found.append(part.strip())
    return found


def complaint(command: str) -> str | None:
    """What typer says against a command line, which is parsed and not run."""
    args = shlex.split(command)[1:]
    group: Any = typer.main.get_command(app)
    try:
        with group.make_context("edgekd", list(args)) as context:
            rest = [*getattr(context, "_protected_args", ()), *context.args]
            if not rest:
                return None
            name, sub, rest = group.resolve_command(context, rest)
            sub.make_context(name, rest, parent=context)
    except typer.Exit:
        return None  # --help and --version
    except _UsageError as e:
        return str(e)
    return None


def documents(tree: Tree) -> list[Path]:
    return [p for p in tree.files if p.suffix == ".md"]


def test_the_check_of_commands_finds_wrong_ones() -> None:
    text = (
        "```bash\n$ .venv/bin/edgekd compress digits --set a=1 \\\n  --json | jq .\n"
        "edgekd lst && edgekd init\n# edgekd nothing\n```\n"
        "```python\nedgekd nothing\n```\n```console\n$ edgekd compress x --bugdet 'p90<=2ms'\n```"
    )
    right, wrong_name, also_right, wrong_option = commands(text)
    assert complaint(right) is complaint(also_right) is None
    assert complaint(wrong_name) == "No such command 'lst'. Did you mean 'list'?"
    assert "--bugdet" in (complaint(wrong_option) or "")


def test_every_command_in_a_document_parses(tree: Tree) -> None:
    wrong = {
        f"{tree.name(path)}: {command}": said
        for path in documents(tree)
        for command in commands(path.read_text(encoding="utf-8"))
        if (said := complaint(command))
    }
    assert wrong == {}


def test_every_relative_link_leads_somewhere(tree: Tree) -> None:
    broken = []
    for path in documents(tree):
        for match in LINK.finditer(path.read_text(encoding="utf-8")):
            link = match[1] or match[2]
            target, _, anchor = link.partition("#")
            if re.match(r"\w+:", link):
                continue  # the world outside
            file = path.parent / target if target else path
            if not file.exists() or (anchor and anchor not in anchors(file)):
                broken.append(f"{tree.name(path)}: {link}")
    assert broken == []


def anchors(path: Path) -> set[str]:
    """Headings as GitHub names them."""
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ (.+?)\s*$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", t.lower()).replace(" ", "-") for t in titles}


def test_every_file_that_a_document_names_exists(tree: Tree) -> None:
    missing = [
        f"{tree.name(path)}: {name}"
        for path in documents(tree)
        for name in NAMED_PATH.findall(FENCE.sub("", path.read_text(encoding="utf-8")))
        if not (tree.root / name).exists()
    ]
    assert missing == []


def test_the_readme_opens_with_its_two_commands(tree: Tree) -> None:
    blocks = FENCE.findall((tree.root / "README.md").read_text(encoding="utf-8"))
    first = next(body for language, body in blocks if language == "bash")
    assert first.splitlines() == [
        "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/edgekd compress digits",
        ".venv/bin/pip install '.[test]' && .venv/bin/pytest",
    ]


def test_the_readme_names_every_kind_of_plugin_folder(tree: Tree) -> None:
    text = (tree.root / "README.md").read_text(encoding="utf-8")
    folders = {registry(k).package.replace(".", "/") for k in PLUGIN_KINDS}
    missing = [f for f in sorted({*folders, "targets"}) if f"{f}/" not in text]
    assert missing == []


def python_blocks(tree: Tree) -> list[str]:
    found = FENCE.findall((tree.root / "README.md").read_text(encoding="utf-8"))
    return [body for language, body in found if language == "python"]


def test_the_python_of_the_readme_compiles_and_names_what_exists(tree: Tree) -> None:
    blocks = python_blocks(tree)
    assert len(blocks) >= 2
    for block in blocks:
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module or "")
                for alias in node.names:
                    assert hasattr(module, alias.name), f"{node.module}.{alias.name}"


def test_the_plugin_in_the_readme_works(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    [block] = [b for b in python_blocks(tree) if "@OBJECTIVES.register" in b]
    path = block.splitlines()[0].removeprefix("# ")
    name = Path(path).stem
    monkeypatch.setattr(OBJECTIVES, "_classes", dict(OBJECTIVES._classes))
    (tmp_path / f"{name}.py").write_text(block)
    spec = importlib.util.spec_from_file_location(
        f"{OBJECTIVES.package}.{name}", tmp_path / f"{name}.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    objective = OBJECTIVES.build({"name": name, "weight": 0.5})
    assert type(objective).__module__.replace(".", "/") == path.removesuffix(".py")
    for check in CHECKS:
        check(objective)
    assert all(field.description for field in fields_of(type(objective)))
