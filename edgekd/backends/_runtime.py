"""Whether this machine has the runtime that a target was written for, and can run it."""

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
    from edgekd.backends._contract import Backend
    from edgekd.core.target import Target


def check_runtime(target: Target) -> str:
    """Version of the target's runtime, after checking that it is in range and can run here.

    Raises:
        MissingDependencyError: The runtime is not installed.
        UnsupportedError: It is installed in a version outside the target's range, or lacks the
            device that it runs on.
        RecipeError: The target's range is not a version specifier.
        UnknownPluginError: The target names a backend that nobody registered.
    """
    backend, version = installed(target)
    backend.check_machine(target)
    return version


def installed(target: Target) -> tuple[Backend, str]:
    """The target's backend and the version of its runtime, which may only build here.

    Raises:
        As `check_runtime`, but for the device.
    """
    try:
        backend = BACKENDS.get(target.backend)()
        version = backend.version()
    except MissingDependencyError as e:
        raise MissingDependencyError(
            f"The target {target.name!r} cannot run here. {e.failed}",
            todo=e.todo or "install the package, or take the target out of the recipe",
        ) from e
    except UnknownPluginError as e:
        raise UnknownPluginError(f"The target {target.name!r} cannot run. {e.failed}") from e
    check_version(target, version, distribution=backend.distribution)
    return backend, version


def check_version(
    target: Target, version: str, *, distribution: str | None, place: str = ""
) -> None:
    """Raise unless `version` of the target's runtime is in its range.

    Args:
        target: Whose range.
        version: Of the runtime that is installed.
        distribution: What pip calls the runtime; None where it does not come by pip.
        place: The device it is installed on; empty for this machine.

    Raises:
        UnsupportedError: It is outside the target's range.
        RecipeError: The target's range is not a version specifier.
    """
    try:
        wanted = SpecifierSet(target.runtime)
    except InvalidSpecifier as e:
        raise RecipeError(
            f"The target {target.name!r} has no valid runtime version.",
            expected="runtime: a version specifier such as '>=1.20,<2'",
            got=repr(target.runtime),
        ) from e
    if not _within(version, wanted):
        raise UnsupportedError(
            f"The target {target.name!r} needs another version of {target.backend}.",
            expected=f"{target.backend} {target.runtime}",
            got=f"{version} on {place}" if place else version,
            todo=(
                f"pip install '{distribution}{target.runtime}'"
                if distribution
                else f"install {target.backend} {target.runtime} as its maker says"
            )
            + (" there" if place else ""),
        )


def _within(version: str, wanted: SpecifierSet) -> bool:
    try:
        return wanted.contains(Version(version), prereleases=True)
    except InvalidVersion:
        return False
