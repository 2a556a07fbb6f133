"""Whether the installed runtime is one that a target was written for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from edgekd.backends._contract import BACKENDS
from edgekd.core.errors import (
    MissingDependencyError,
    RecipeError,
    UnknownPluginError,
    UnsupportedError,
)

if TYPE_CHECKING:
    from edgekd.core.target import Target


def check_runtime(target: Target) -> str:
    """Version of the target's runtime, after checking that it is installed and in range.

    Raises:
        MissingDependencyError: The runtime is not installed.
        UnsupportedError: It is installed in a version outside the target's range.
        RecipeError: The target's range is not a version specifier.
        UnknownPluginError: The target names a backend that nobody registered.
    """
    try:
        wanted = SpecifierSet(target.runtime)
    except InvalidSpecifier as e:
        raise RecipeError(
            f"The target {target.name!r} has no valid runtime version.",
            expected="runtime: a version specifier such as '>=1.20,<2'",
            got=repr(target.runtime),
        ) from e
    try:
        backend = BACKENDS.get(target.backend)()
    except MissingDependencyError as e:
        raise MissingDependencyError(
            f"The target {target.name!r} cannot run here. {e.failed}",
            todo=e.todo or "install the package, or take the target out of the recipe",
        ) from e
    except UnknownPluginError as e:
        raise UnknownPluginError(f"The target {target.name!r} cannot run. {e.failed}") from e
    version = backend.version()
    if not _within(version, wanted):
        raise UnsupportedError(
            f"The target {target.name!r} needs another version of {target.backend}.",
            expected=f"{target.backend} {target.runtime}",
            got=version,
            todo=f"pip install '{target.backend}{target.runtime}'",
        )
    return version


def _within(version: str, wanted: SpecifierSet) -> bool:
    try:
        return wanted.contains(Version(version), prereleases=True)
    except InvalidVersion:
        return False
