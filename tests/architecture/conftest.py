"""The project's own files as a test sees them."""

from __future__ import annotations

import ast
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

_SOURCES = (".py", ".toml", ".yaml", ".yml", ".md", ".html", ".j2", ".css", ".js", ".txt", "")


@dataclass(frozen=True)
class Tree:
    """Every file that belongs to the project."""

    root: Path
    files: tuple[Path, ...]

    @property
    def python(self) -> tuple[Path, ...]:
        return tuple(p for p in self.files if p.suffix == ".py")

    @property
    def package(self) -> tuple[Path, ...]:
        return tuple(p for p in self.python if p.is_relative_to(self.root / "edgekd"))

    @property
    def texts(self) -> tuple[Path, ...]:
        return tuple(p for p in self.files if p.suffix in _SOURCES)

    def name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def parse(self, path: Path) -> ast.Module:
        return _parsed(path)


@cache
def _parsed(path: Path) -> ast.Module:
    """Once for all tests: nobody changes what comes out."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


@pytest.fixture(scope="session")
def tree(repo_root: Path) -> Tree:
    # in a checkout what git knows or would add; in an unpacked archive whatever is there
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(command, cwd=repo_root, capture_output=True, check=True)
        names = [Path(n) for n in done.stdout.decode().split("\0") if n]
    except (OSError, subprocess.CalledProcessError):
        parts = ("edgekd", "tests", "targets", "bench", "README.md", "pyproject.toml")
        found = [q for p in parts for q in [repo_root / p, *(repo_root / p).rglob("*")]]
        names = [p.relative_to(repo_root) for p in found if "__pycache__" not in p.parts]
    files = tuple(sorted(repo_root / n for n in names if (repo_root / n).is_file()))
    assert len(files) > 50
    return Tree(repo_root, files)
