"""One plugin is one module; `@KIND.register` is the only registration.

The folder listing is the catalogue, so listing imports nothing. Asking for a name imports that
one module, so a runtime that is not installed never breaks another. Packages outside edgekd use
an entry-point group named as the folder's package, e.g. ``edgekd.students``.
"""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar, cast

from pydantic import BaseModel, BeforeValidator, PlainSerializer, ValidationError

from edgekd.core.complaints import NestedComplaintsError, complaints, nearest
from edgekd.core.errors import MissingDependencyError, RecipeError, UnknownPluginError

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
        if taken is not None and _place(taken) != _place(cls):
            raise ValueError(
                f"{self.kind} {name!r} is already registered as {_place(taken)}, not {_place(cls)}"
            )
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
            RecipeError: An installed package brings the name, but wrongly.
        """
        if name not in self._classes:
            self._import(name)
        return self._classes[name]

    def summaries(self) -> dict[str, str]:
        """Name -> first line of the plugin's module, or the package it comes from; no imports."""
        outside = {n: f"from {e.value.partition(':')[0]}" for n, e in self._outside().items()}
        inside = {n: _first_line(path) for n, path in self._own().items()}
        known = dict.fromkeys(self._classes, "")
        return dict(sorted({**known, **outside, **inside}.items()))

    def build(self, spec: str | Mapping[str, Any]) -> T:
        """Build a plugin from ``"name"`` or ``{"name": …, field: value, …}``.

        Raises:
            UnknownPluginError: Nobody carries the name.
            RecipeError: A field is wrong; the text carries the field's path.
        """
        try:
            return self._make(spec)
        except NestedComplaintsError as e:
            name = spec.get("name") if isinstance(spec, Mapping) else spec
            lines = [f"{path}: {text}" if path else text for path, text in e.items]
            raise RecipeError(
                f"The {self.kind} {name!r} is not valid.", got="\n            ".join(lines)
            ) from e

    def field(self, *, optional: bool = False, words: tuple[str, ...] = ()) -> Any:
        """A pydantic field type: read from ``"name"`` or ``{name: …, …}``, written back the same.

        Complaints about the plugin's own fields keep their full path in the recipe.

        Args:
            optional: None is fine too.
            words: Fine too, and kept as they are; a plugin of such a name cannot be chosen.
        """
        read, write = self._from_recipe, self.spec_of
        if words:
            return Annotated[
                Any,
                BeforeValidator(lambda value: self._word_or_plugin(value, words)),
                PlainSerializer(lambda value: value if value in words else write(value)),
            ]
        if optional:
            return Annotated[
                Any,
                BeforeValidator(lambda value: None if value is None else read(value)),
                PlainSerializer(lambda value: None if value is None else write(value)),
            ]
        return Annotated[Any, BeforeValidator(read), PlainSerializer(write)]

    def spec_of(self, plugin: Any) -> dict[str, Any]:
        """The mapping that `build` turns back into an equal plugin."""
        return {"name": type(plugin).__module__.rpartition(".")[2], **plugin.model_dump()}

    def _from_recipe(self, value: Any) -> Any:
        if type(value) in self._classes.values():
            return value  # built in Python already
        try:
            return self._make(value)
        except UnknownPluginError as e:
            raise NestedComplaintsError([("name", e.failed)]) from e

    def _word_or_plugin(self, value: Any, words: tuple[str, ...]) -> Any:
        if not isinstance(value, str):
            return self._from_recipe(value)
        if value in words:
            return value
        if value not in self.names():
            known = [*words, *self.names()]
            text = f"No {self.kind} named {value!r}{nearest(value, known)}"
            raise NestedComplaintsError([("", text)])
        return self._from_recipe(value)

    def _make(self, spec: Any) -> T:
        fields = {"name": spec} if isinstance(spec, str) else spec
        known = ", ".join(self.names())
        if not isinstance(fields, Mapping):
            text = f"a {self.kind} is given by its name or as a mapping, got {spec!r}"
            raise NestedComplaintsError([("", f"{text}. Known: {known}")])
        name = fields.get("name")
        if not isinstance(name, str):
            raise NestedComplaintsError(
                [("name", f"a {self.kind} needs its name, one of {known}")]
            )
        cls: Any = self.get(name)
        settings = {k: v for k, v in fields.items() if k != "name"}
        if not issubclass(cls, BaseModel):
            if settings:
                text = f"no such field; the {self.kind} {name!r} has none"
                raise NestedComplaintsError([(str(k), text) for k in settings])
            plain: T = cls()
            return plain
        try:
            return cast("T", cls.model_validate(settings))
        except ValidationError as e:
            raise NestedComplaintsError(complaints(e, cls)) from e

    def _own(self) -> dict[str, Path]:
        """Name -> file of each plugin in edgekd's own folder."""
        spec = importlib.util.find_spec(self.package)
        folders = (spec.submodule_search_locations if spec else None) or []
        return {
            path.stem: path
            for folder in folders
            for path in Path(folder).glob("*.py")
            if not path.name.startswith("_")
        }

    def _outside(self) -> dict[str, importlib.metadata.EntryPoint]:
        return {e.name: e for e in importlib.metadata.entry_points(group=self.package)}

    def _import(self, name: str) -> None:
        own, outside = self._own(), self._outside()
        try:
            if name in own:
                if name in outside:
                    raise RecipeError(
                        f"An installed package brings a {self.kind} under a name of edgekd's own.",
                        expected=f"a name other than {', '.join(sorted(own))}",
                        got=f"{name} = {outside[name].value}",
                        todo="rename its module and entry point, or uninstall it",
                    )
                importlib.import_module(f"{self.package}.{name}")
            elif name in outside:
                outside[name].load()
            else:
                raise UnknownPluginError(
                    f"No {self.kind} named {name!r}{nearest(name, self.names())}"
                )
        except ImportError as e:
            if not MissingDependencyError.is_about_others(e):
                raise  # our own bug must surface as itself
            user = f"The {self.kind} {name!r}"
            raise MissingDependencyError.from_import_error(e, user=user) from e
        if name not in self._classes:
            if name in own:
                raise ValueError(f"{self.package}.{name} registers no {self.kind} (use @register)")
            raise RecipeError(
                f"The installed package of the {self.kind} {name!r} does not register it.",
                expected=f"a module called {name}.py with a class under @register",
                got=f"{name} = {outside[name].value}",
            )


def _place(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _first_line(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_bytes())) or ""
    return text.partition("\n")[0]
