"""What a plugin says about itself: its docstring, and each field with type and meaning."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined, to_jsonable_python

_WORDS = {str: "text", int: "int", float: "float", bool: "bool", Path: "path", Any: "any"}
_BOUNDS = {
    "ge": ">= {}",
    "gt": "> {}",
    "le": "<= {}",
    "lt": "< {}",
    "min_length": "(at least {})",
    "max_length": "(at most {})",
}
_SECTION = re.compile(r"^(Args|Attributes|Raises|Returns|Note|Example):\s*$", re.MULTILINE)
_ENTRY = re.compile(r" {4}(\w+): (.*)")


@dataclass(frozen=True, slots=True)
class FieldText:
    """One setting of a plugin, in the words of a recipe.

    Attributes:
        name: Dotted where it belongs to a mapping inside, e.g. "augment.flip".
        type: E.g. "int >= 1" or "'sgd' | 'adamw'".
        required: It has no default.
        default: A JSON value; None too when it is required.
        description: From the class's docstring.
    """

    name: str
    type: str
    required: bool
    default: Any
    description: str


def summary_of(cls: type) -> str:
    """The class's docstring without its Google sections."""
    doc = inspect.cleandoc(cls.__doc__ or "")
    section = _SECTION.search(doc)
    return (doc[: section.start()] if section else doc).strip()


def fields_of(cls: type, prefix: str = "") -> list[FieldText]:
    """The settings of a plugin in their order; none for a class that is no pydantic model."""
    if not issubclass(cls, BaseModel):
        return []
    meanings = _meanings(cls)
    lines = []
    for name, field in cls.model_fields.items():
        inner = _model_in(field.annotation)
        if inner is not field.annotation or inner is None:
            default = field.get_default(call_default_factory=True)
            required = default is PydanticUndefined
            lines.append(
                FieldText(
                    name=prefix + name,
                    type=_type_text(Annotated[field.annotation, *field.metadata, None]),
                    required=required,
                    default=None if required else to_jsonable_python(default, fallback=str),
                    description=meanings.get(name, field.description or ""),
                )
            )
        if inner is not None:
            lines += fields_of(inner, f"{prefix}{name}.")
    return lines


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The one model that a field holds, perhaps beside None."""
    members = [a for a in get_args(annotation) or (annotation,) if a is not type(None)]
    only = members[0] if len(members) == 1 else None
    return only if isinstance(only, type) and issubclass(only, BaseModel) else None


def _meanings(cls: type) -> dict[str, str]:
    """Field -> text from the `Attributes` sections of the class and its bases."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if base.__doc__ is None:
            continue
        _, _, attributes = inspect.cleandoc(base.__doc__).partition("Attributes:\n")
        name = ""
        for line in attributes.splitlines():
            if line and not line.startswith("    "):
                break  # the next section
            if entry := _ENTRY.fullmatch(line):
                name = entry[1]
                found[name] = entry[2]
            elif name:
                found[name] = f"{found[name]} {line.strip()}".strip()
    return found


def _type_text(annotation: Any) -> str:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        base, bounds = args[0], [b for m in args[1:] for b in _bounds(m)]
        return f"{_type_text(base)} {', '.join(bounds)}".strip()
    if origin is Literal:
        return " | ".join(repr(a) for a in args)
    if annotation is type(None):
        return "null"
    if annotation in _WORDS:
        return _WORDS[annotation]
    if origin in (tuple, list):
        return "list of " + (_type_text(args[0]) if args else "any")
    if isinstance(origin, type) and origin.__name__ in ("dict", "Mapping"):
        return f"mapping of {_type_text(args[1])}"
    if args:
        return " | ".join(_type_text(a) for a in args)
    if annotation is dict or (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return "mapping"
    return str(getattr(annotation, "__name__", annotation))


def _bounds(constraint: Any) -> list[str]:
    """A constraint of `annotated_types`, or pydantic's own bundle of them, as text."""
    if isinstance(constraint, FieldInfo):
        return [text for inner in constraint.metadata for text in _bounds(inner)]
    found = []
    for attribute, text in _BOUNDS.items():
        limit = getattr(constraint, attribute, None)
        if isinstance(limit, int | float):
            found.append(text.format(limit))
    return found
