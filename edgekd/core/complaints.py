"""Pydantic's complaints as lines for a person: the path as in the YAML, and the nearest name.

Pydantic's own location of an error holds more than the user wrote: the tag of a chosen union
member, or the name of a class it tried. Walking the annotations along the location tells these
apart from real fields.
"""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

_MAPPING_WANTED = {"model_type", "model_attributes_type", "dict_type", "mapping_type"}
_LIST_WANTED = {"list_type", "tuple_type"}
_WORDED_WELL = {"value_error", "assertion_error"}  # our own texts, which carry what was got
_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 60


def nearest(name: str, known: Collection[str]) -> str:
    """`. Did you mean 'x'? Known: …` for an error text."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f". Did you mean {close[0]!r}?" if close else "."
    return f"{hint} Known: {', '.join(sorted(known)) or 'none'}"


class NestedComplaintsError(ValueError):
    """Raised inside a validator to hand on complaints of a plugin's own fields.

    Args:
        items: (path below the field, message) of each complaint.
    """

    def __init__(self, items: list[tuple[str, str]]) -> None:
        self.items = items
        super().__init__("; ".join(f"{path}: {message}" for path, message in items))


def complaints(error: ValidationError, model: type[BaseModel]) -> list[tuple[str, str]]:
    """(dotted path, message) of everything pydantic found wrong in `model`, one for each field."""
    found: dict[tuple[str, ...], list[str]] = {}
    meant: set[tuple[str, ...]] = set()
    of_members: set[tuple[str, ...]] = set()
    for item in error.errors():
        path, parent, whole_member = _walk(model, item["loc"])
        for below, message in _read(item, path, parent):
            messages = found.setdefault(below, [])
            if message not in messages:
                messages.append(message)
            if whole_member:
                of_members.add(below)
            meant.update(below[:n] for n in range(len(below)))
    # a union complains once for each member; where one of them was read into, the others that
    # would have nothing of the kind are not what was meant
    return [
        (".".join(path) or "(top)", "; or ".join(messages))
        for path, messages in found.items()
        if not (path in meant and path in of_members)
    ]


def _read(
    item: ErrorDetails, path: tuple[str, ...], parent: Any
) -> list[tuple[tuple[str, ...], str]]:
    context: Mapping[str, Any] = item.get("ctx") or {}
    kind, message = item["type"], item["msg"].removeprefix("Value error, ")
    cause = context.get("error")
    if isinstance(cause, NestedComplaintsError):
        return [((*path, *filter(None, [sub])), text) for sub, text in cause.items]
    if kind == "extra_forbidden":
        known = _fields(parent)
        return [(path, "no such field" + (nearest(path[-1], known) if known else ""))]
    if kind == "missing":
        return [(path, "is required")]
    if kind == "union_tag_invalid":
        tags = re.findall(r"'([^']*)'", str(context["expected_tags"]))
        field = str(context["discriminator"]).strip("'")
        return [((*path, field), f"no such {field}{nearest(str(context['tag']), tags)}")]
    if kind == "union_tag_not_found":
        return [((*path, str(context["discriminator"]).strip("'")), "is required")]
    if kind in _MAPPING_WANTED:
        message = "should be a mapping of `name: value` lines"
    elif kind in _LIST_WANTED:
        message = "should be a list, written [a, b] or one `- item` a line"
    elif kind in _WORDED_WELL:
        return [(path, message)]
    return [(path, f"{message}, got {_REPR.repr(item.get('input'))}")]


def _walk(model: Any, loc: tuple[int | str, ...]) -> tuple[tuple[str, ...], Any, bool]:
    """Follow a location through the annotations.

    Returns:
        The path without pydantic's own labels, the type that holds its last part, and whether the
        complaint is about one member of a union as a whole.
    """
    here: Any = model
    parent: Any = model
    path: list[str] = []
    is_label = False
    for part in loc:
        members = _members(here)
        is_label = len(members) > 1
        if is_label:  # inside a union the part names a member, not a field
            here = _chosen(members, str(part))
        elif part != "[key]":
            parent = members[0]
            path.append(str(part))
            here = _inside(parent, part)
    return tuple(path), parent, is_label


def _members(annotation: Any) -> list[Any]:
    """The members of a union without None; a plain type alone."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _members(get_args(annotation)[0])
    if origin is Union or _is_pipe_union(annotation):
        return [m for a in get_args(annotation) if a is not type(None) for m in _members(a)]
    return [annotation]


def _is_pipe_union(annotation: Any) -> bool:
    return type(annotation).__name__ == "UnionType"


def _chosen(members: list[Any], label: str) -> Any:
    """The member a label speaks of: by its discriminator's value, else by its class name."""
    if label.startswith("tagged-union["):
        return Union[tuple(members)]  # noqa: UP007  # an outer label; the next part chooses
    for member in members:
        if any(label in _literals(f.annotation) for f in _fields(member).values()):
            return member
    for member in members:
        if re.search(rf"\b{re.escape(getattr(member, '__name__', ''))}\b", label):
            return member
    return None


def _literals(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) is Literal else ()


def _fields(model: Any) -> dict[str, Any]:
    is_model = isinstance(model, type) and issubclass(model, BaseModel)
    return dict(model.model_fields) if is_model else {}


def _inside(holder: Any, part: int | str) -> Any:
    """The type of `holder`'s field, value or item called `part`; None when unknown."""
    fields = _fields(holder)
    if part in fields:
        return fields[str(part)].annotation
    origin, args = get_origin(holder), get_args(holder)
    if not args or not isinstance(origin, type):
        return None
    if issubclass(origin, Mapping):
        return args[1]
    if origin is tuple and Ellipsis not in args:
        return args[part] if isinstance(part, int) and part < len(args) else None
    return args[0]
