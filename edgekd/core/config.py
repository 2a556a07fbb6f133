"""What a person types: frozen pydantic models, and YAML that can neither run code nor repeat a key."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from edgekd.core.errors import EdgekdError, RecipeError

MAX_YAML_BYTES = 1 << 20

_Model = TypeVar("_Model", bound=BaseModel)


class Config(BaseModel):
    """Base of everything a user writes: frozen, and unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def load_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping; tags that construct objects and repeated keys are refused.

    Raises:
        RecipeError: The file is missing, too large, not YAML, or not a mapping.
    """
    try:
        if path.stat().st_size > MAX_YAML_BYTES:
            raise RecipeError(
                f"{path} is too large for a recipe or target file.",
                expected=f"at most {MAX_YAML_BYTES} bytes",
                got=f"{path.stat().st_size} bytes",
            )
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as e:
        raise RecipeError(
            f"There is no file {str(path)!r}.",
            expected="a YAML file",
            todo="check the path, or write a commented recipe with `edgekd init`",
        ) from e
    except (OSError, UnicodeDecodeError) as e:
        raise RecipeError(f"{path} cannot be read.", got=str(e)) from e
    return parse_yaml(text, source=str(path))


def parse_yaml(text: str, *, source: str) -> dict[str, Any]:
    """Parse YAML text into a mapping; `source` names it in errors."""
    from ruamel.yaml import YAML
    from ruamel.yaml.constructor import DuplicateKeyError
    from ruamel.yaml.error import YAMLError

    yaml = YAML(typ="safe", pure=True)
    yaml.allow_duplicate_keys = False
    try:
        value = yaml.load(text)
    except DuplicateKeyError as e:
        raise RecipeError(
            f"{source} gives a key twice.",
            got=" ".join(str(e.problem).split()) + f" (line {_line(e)})",
            todo="keep one of the two lines",
        ) from e
    except YAMLError as e:
        problem = " ".join(str(getattr(e, "problem", None) or e).split())
        raise RecipeError(
            f"{source} is not YAML that edgekd reads.",
            expected="plain values, lists and mappings; no tags",
            got=f"{problem} (line {_line(e)})",
        ) from e
    if not isinstance(value, dict):
        raise RecipeError(
            f"{source} does not hold a mapping at its top.",
            expected="`name: value` lines",
            got=type(value).__name__,
        )
    return value


def dump_yaml(value: dict[str, Any]) -> str:
    """The value as YAML text, keys in their order."""
    import io

    from ruamel.yaml import YAML

    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    out = io.StringIO()
    yaml.dump(value, out)
    return out.getvalue()


def validate(model: type[_Model], value: Any, *, source: str) -> _Model:
    """Build `model` from plain values, turning pydantic's complaints into one RecipeError.

    Every complaint is a line with the path of its field; an unknown field names the nearest
    valid one.

    Raises:
        RecipeError: The value does not fit the model.
    """
    try:
        return model.model_validate(value)
    except ValidationError as e:
        raise from_validation_error(e, source=source, model=model) from e


class NestedComplaints(ValueError):
    """Raised inside a validator to hand on complaints of a plugin's own fields.

    Args:
        items: (path below the field, message) of each complaint.
    """

    def __init__(self, items: list[tuple[str, str]]) -> None:
        self.items = items
        super().__init__("; ".join(f"{path}: {message}" for path, message in items))


def from_validation_error(
    error: ValidationError, *, source: str, model: type[BaseModel]
) -> EdgekdError:
    """One RecipeError with a line per complaint."""
    lines = [f"{path}: {message}" for path, message in complaints(error, model)]
    return RecipeError(f"{source} is not valid.", got="\n            ".join(lines))


def complaints(error: ValidationError, model: type[BaseModel]) -> list[tuple[str, str]]:
    """(dotted path, message) of everything pydantic found wrong in `model`."""
    found = []
    for item in error.errors():
        path = ".".join(str(part) for part in item["loc"])
        cause = (item.get("ctx") or {}).get("error")
        if isinstance(cause, NestedComplaints):
            found += [(".".join(filter(None, (path, sub))), text) for sub, text in cause.items]
            continue
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            message = "no such field" + _nearest(item["loc"], model)
        elif item["type"] not in ("missing", "value_error"):
            message += f", got {item.get('input')!r}"
        found.append((path or "(top)", message))
    return found


def nearest(name: str, known: list[str]) -> str:
    """`. Did you mean 'x'? Known: …` for an error text."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f". Did you mean {close[0]!r}?" if close else "."
    return f"{hint} Known: {', '.join(sorted(known)) or 'none'}"


def _nearest(loc: tuple[int | str, ...], model: type[BaseModel]) -> str:
    """Walk to the model that refused the field, as far as annotations tell."""
    here: Any = model
    for part in loc[:-1]:
        fields = getattr(here, "model_fields", {})
        if part in fields:
            here = _model_of(fields[part].annotation)
        elif not isinstance(part, int):
            here = None
        if here is None:
            return ""
    return nearest(str(loc[-1]), list(getattr(here, "model_fields", {})))


def _model_of(annotation: Any) -> Any:
    from typing import get_args

    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for arg in get_args(annotation):
        found = _model_of(arg)
        if found is not None:
            return found
    return None


def _line(error: Any) -> str:
    mark = getattr(error, "problem_mark", None)
    return str(mark.line + 1) if mark is not None else "?"
