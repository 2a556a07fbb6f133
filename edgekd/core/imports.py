"""A user's own Python: ``module:attribute``, looked for in the recipe's folder first."""

from __future__ import annotations

import importlib
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd.core.config import nearest
from edgekd.core.errors import EdgekdError, MissingDependencyError, RecipeError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from importlib.machinery import ModuleSpec

_INSTALLED = {"site-packages", "dist-packages"}


def call_attribute(
    path: str, kwargs: Mapping[str, Any], folder: Path, *, what: str, field: str
) -> Any:
    """Import ``module:attribute`` and call it.

    Args:
        path: E.g. ``"models.mine:build"``.
        kwargs: Keyword arguments of the call.
        folder: Searched before everything else; `sys.path` is left as it was.
        what: What the callable makes, for errors: "teacher", "data set".
        field: Its field in the recipe, for errors: "teacher.factory".

    Raises:
        RecipeError: Not of that form, not importable, not callable, or the call itself failed.
        MissingDependencyError: The module imports a package that is not installed.
    """
    with importable(folder):
        function = _find(path, folder, field)
        if not callable(function):
            raise RecipeError(
                f"{field}: {path!r} cannot be called.",
                expected=f"a function or class that returns the {what}",
                got=type(function).__name__,
            )
        try:
            return function(**kwargs)
        except EdgekdError:
            raise
        except (Exception, SystemExit) as e:  # a script's own exit must not end ours as a success
            raise RecipeError(
                f"{field}: {path!r} failed when it was called to make the {what}.",
                got=describe(e),
                todo=f"call it yourself in Python with {dict(kwargs)!r} to see the traceback",
            ) from e


@contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Put `folder` in front of `sys.path`, and take it out again whatever happens."""
    before = list(sys.path)
    sys.path.insert(0, str(folder.resolve()))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = before


def describe(error: BaseException) -> str:
    """One line: type, first line of the text, and the last place outside installed packages."""
    text = (str(error).strip().splitlines() or [""])[0]
    trace, where = error.__traceback__, ""
    while trace is not None:
        file = Path(trace.tb_frame.f_code.co_filename)
        if file.is_file() and not _INSTALLED & set(file.parts):
            where = f" ({file.name}, line {trace.tb_lineno})"
        trace = trace.tb_next
    if isinstance(error, SyntaxError):
        where = ""  # its text names file and line itself
    return f"{type(error).__name__}: {text}{where}"


def _find(path: str, folder: Path, field: str) -> Any:
    module_name, colon, attribute = path.partition(":")
    parts = [*module_name.split("."), *attribute.split(".")]
    if not colon or not all(part.isidentifier() for part in parts):
        raise RecipeError(
            f"{field} does not name a Python attribute.",
            expected="module:attribute, e.g. models:build",
            got=repr(path),
        )
    _forget_namesake(module_name.partition(".")[0], folder.resolve(), field)
    value: Any = _import(module_name, folder, field)
    for part in attribute.split("."):
        if not hasattr(value, part):
            known = [name for name in dir(value) if not name.startswith("_")]
            raise RecipeError(f"{field}: {module_name!r} has no {part!r}{nearest(part, known)}")
        value = getattr(value, part)
    return value


def _import(module_name: str, folder: Path, field: str) -> Any:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as e:
        missing = e.name or ""
        if module_name == missing or module_name.startswith(missing + "."):
            raise RecipeError(
                f"{field}: there is no Python module {missing!r}.",
                expected=f"{missing.replace('.', '/')}.py in {folder} or an installed package",
            ) from e
        user = f"{field}: the module {module_name!r}"
        raise MissingDependencyError.from_import_error(e, user=user) from e
    except (Exception, SystemExit) as e:
        raise RecipeError(
            f"{field}: the module {module_name!r} failed while it was imported.",
            got=describe(e),
        ) from e


def _forget_namesake(top: str, folder: Path, field: str) -> None:
    """Drop a module of the same name that an earlier recipe brought from another folder.

    Raises:
        RecipeError: The name belongs to an installed package that is in use: replacing that would
            break it, and not replacing it would silently call the wrong code.
    """
    loaded = sys.modules.get(top)
    if loaded is None:
        return
    found = next((s for finder in sys.meta_path if (s := finder.find_spec(top, None))), None)
    was, now = _file(getattr(loaded, "__spec__", None)), _file(found)
    if was is not None and was == now:
        return
    if top in sys.stdlib_module_names or (was and _INSTALLED & set(was.parts)):
        if now and now.is_relative_to(folder):
            raise RecipeError(
                f"{field}: {now} carries the name of a Python package that is already in use.",
                got=str(was or "built into Python"),
                todo="rename the file",
            )
        return
    for name, module in list(sys.modules.items()):
        if name == top or name.startswith(top + "."):
            place = _file(getattr(module, "__spec__", None))
            if place is None or not _INSTALLED & set(place.parts):
                del sys.modules[name]


def _file(spec: ModuleSpec | None) -> Path | None:
    """Where a module stands; None for built-in ones and for folders without an ``__init__``."""
    return Path(spec.origin).resolve() if spec and spec.has_location and spec.origin else None
