"""One plugin is one module; `@KIND.register` is the only registration.

The folder listing is the catalogue, so listing imports nothing. Asking for a name imports that
one module, so a runtime that is not installed never breaks another. Packages outside edgekd use
an entry-point group named as the folder's package, e.g. ``edgekd.students``.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import pkgutil
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar

from pydantic import BeforeValidator, PlainSerializer, ValidationError

from edgekd.core.complaints import NestedComplaintsError, complaints, nearest
from edgekd.core.config import from_validation_error
from edgekd.core.errors import MissingDependencyError, RecipeError, UnknownPluginError

if TYPE_CHECKING:
    from collections.abc import Mapping

T = TypeVar("T")


class Registry(Generic[T]):
    """The plugins of one kind.

    Args:
        kind: What a user calls one of them, e.g. "student family".
        package: Dotted name of the folder that holds them; also the entry-point group.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind, self.package = kind, package
        self._classes: dict[str, type[T]] = {}

    def register(self, cls: type[T]) -> type[T]:
        """Class decorator: register under the name of the module that defines the class.

        Raises:
            ValueError: The name is taken by another class.
        """
        name = cls.__module__.rpartition(".")[2]
        taken = self._classes.get(name)
        if taken is not None and taken.__qualname__ != cls.__qualname__:
            raise ValueError(f"{self.kind} {name!r} is already registered as {taken!r}")
        self._classes[name] = cls
        return cls

    def names(self) -> list[str]:
        """All names, sorted, without importing any plugin."""
        return sorted({*self._own(), *self._outside(), *self._classes})

    def get(self, name: str) -> type[T]:
        """The class registered under `name`; imports its module on first use.

        Raises:
            UnknownPluginError: Nobody carries the name.
            MissingDependencyError: Its module needs a package that is not installed.
        """
        if name not in self._classes:
            self._import(name)
        return self._classes[name]

    def build(self, spec: str | Mapping[str, Any], *, key: str = "name") -> T:
        """Build a plugin from ``"name"`` or ``{"name": …, field: value, …}``.

        Raises:
            RecipeError: A field is wrong; the text carries the field's path.
        """
        fields = {key: spec} if isinstance(spec, str) else dict(spec)
        name = fields.pop(key, None)
        if not isinstance(name, str):
            raise RecipeError(
                f"A {self.kind} is given without its {key!r}.",
                expected=f"`{key}:` and one of {', '.join(self.names())}",
                got=repr(spec),
            )
        cls = self.get(name)
        try:
            return cls(**fields)
        except ValidationError as e:
            source = f"{self.kind} {name!r}"
            raise from_validation_error(e, source=source, model=cls) from e  # type: ignore[arg-type]

    def field(self) -> Any:
        """A pydantic field type: read from ``"name"`` or ``{name: …, …}``, written back the same.

        Complaints about the plugin's own fields keep their full path in the recipe.
        """
        return Annotated[Any, BeforeValidator(self._from_recipe), PlainSerializer(self.spec_of)]

    def spec_of(self, plugin: Any) -> dict[str, Any]:
        """The mapping that `build` turns back into an equal plugin."""
        return {"name": type(plugin).__module__.rpartition(".")[2], **plugin.model_dump()}

    def _from_recipe(self, value: Any) -> Any:
        if not isinstance(value, str | dict):
            return value
        fields = {"name": value} if isinstance(value, str) else dict(value)
        name = fields.pop("name", None)
        if not isinstance(name, str):
            known = ", ".join(self.names())
            raise NestedComplaintsError(
                [("name", f"a {self.kind} needs its name, one of {known}")]
            )
        try:
            cls: Any = self.get(name)
        except UnknownPluginError as e:
            raise NestedComplaintsError([("name", e.failed)]) from e
        try:
            return cls(**fields)
        except ValidationError as e:
            raise NestedComplaintsError(complaints(e, cls)) from e

    def _own(self) -> list[str]:
        spec = importlib.util.find_spec(self.package)
        paths = list(spec.submodule_search_locations or []) if spec else []
        return [
            m.name
            for m in pkgutil.iter_modules(paths)
            if not m.name.startswith("_") and not m.ispkg
        ]

    def _outside(self) -> dict[str, importlib.metadata.EntryPoint]:
        return {e.name: e for e in importlib.metadata.entry_points(group=self.package)}

    def _import(self, name: str) -> None:
        try:
            if name in self._own():
                importlib.import_module(f"{self.package}.{name}")
            elif name in (outside := self._outside()):
                self._classes[name] = outside[name].load()
            else:
                raise UnknownPluginError(
                    f"No {self.kind} named {name!r}{nearest(name, self.names())}"
                )
        except ModuleNotFoundError as e:
            missing = (e.name or "").partition(".")[0]
            if missing in ("", "edgekd"):
                raise  # our own bug must surface as itself
            raise MissingDependencyError(
                f"The {self.kind} {name!r} needs the package {missing!r}, which is not installed.",
                todo=f"pip install {missing}",
            ) from e
        if name not in self._classes:
            raise ValueError(f"{self.package}.{name} registers no {self.kind} (use @register)")
