"""What a person types: frozen models, and YAML that can neither run code nor repeat a key."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from edgekd.core.complaints import complaints
from edgekd.core.complaints import nearest as nearest
from edgekd.core.errors import RecipeError

MAX_YAML_BYTES = 1 << 18
MAX_YAML_NODES = 20_000

_Model = TypeVar("_Model", bound=BaseModel)


class Config(BaseModel):
    """Base of everything a user writes: frozen; unknown fields, NaN and infinity are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def load_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping; tags that construct objects and repeated keys are refused.

    Raises:
        RecipeError: The file is missing, too large, not YAML, or not a mapping.
    """
    try:
        with path.open("rb") as f:
            raw = f.read(MAX_YAML_BYTES + 1)  # never more: it may be a pipe or a device
        text = raw.decode("utf-8-sig")
    except FileNotFoundError as e:
        raise RecipeError(
            f"There is no file {str(path)!r}.",
            expected="a YAML file",
            todo="check the path, or write a commented recipe with `edgekd init`",
        ) from e
    except (OSError, UnicodeDecodeError) as e:
        reason = e.strerror if isinstance(e, OSError) else str(e)
        raise RecipeError(
            f"{path} cannot be read.", expected="a YAML file in UTF-8", got=str(reason)
        ) from e
    if len(raw) > MAX_YAML_BYTES:
        raise RecipeError(
            f"{path} is too large for a recipe or target file.",
            expected=f"at most {MAX_YAML_BYTES} bytes",
            got="more than that",
        )
    return parse_yaml(text, source=str(path))


def parse_yaml(text: str, *, source: str) -> dict[str, Any]:
    """Parse YAML text into a mapping; `source` names it in errors.

    Raises:
        RecipeError: Not YAML, a tag, a repeated key, aliases that expand without end, or not a
            mapping.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.constructor import DuplicateKeyError
    from ruamel.yaml.error import YAMLError

    yaml = YAML(typ="safe", pure=True)
    yaml.allow_duplicate_keys = False
    try:
        node = yaml.compose(text)
        nodes = _expanded_nodes(node)
        value = None
        if nodes <= MAX_YAML_NODES and node is not None:
            value = yaml.constructor.construct_document(node)
    except DuplicateKeyError as e:
        raise RecipeError(
            f"{source} gives a key twice.",
            got=" ".join(str(e.problem).split()) + f" (line {_line(e)})",
            todo="keep one of the two lines",
        ) from e
    except (YAMLError, RecursionError) as e:
        problem = " ".join(str(getattr(e, "problem", None) or e).split())
        raise RecipeError(
            f"{source} is not YAML that edgekd reads.",
            expected="plain values, lists and mappings; no tags",
            got=f"{problem} (line {_line(e)})",
        ) from e
    if nodes > MAX_YAML_NODES:
        raise RecipeError(
            f"{source} holds aliases (`*name`) that expand to too much.",
            expected=f"at most {MAX_YAML_NODES} values once every alias is written out",
            got="an alias inside itself" if nodes == math.inf else f"{nodes} values",
        )
    if not isinstance(value, dict):
        raise RecipeError(
            f"{source} does not hold a mapping at its top.",
            expected="`name: value` lines",
            got="nothing" if value is None else type(value).__name__,
        )
    return value


def _expanded_nodes(node: Any) -> float:
    """Values in the composed tree with every alias written out; infinite for a cycle."""
    counts: dict[int, float] = {}

    def count(node: Any) -> float:
        if id(node) not in counts:
            counts[id(node)] = math.inf  # met again below itself: a cycle
            inner = node.value if isinstance(node.value, list) else []
            flat = [n for part in inner for n in (part if isinstance(part, tuple) else (part,))]
            counts[id(node)] = 1 + sum(count(n) for n in flat)
        return counts[id(node)]

    return 0 if node is None else count(node)


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


def from_validation_error(
    error: ValidationError, *, source: str, model: type[BaseModel]
) -> RecipeError:
    """One error with a line per complaint."""
    lines = [f"{path}: {message}" for path, message in complaints(error, model)]
    return RecipeError(f"{source} is not valid.", got="\n            ".join(lines))


def _line(error: Any) -> str:
    mark = getattr(error, "problem_mark", None)
    return str(mark.line + 1) if mark is not None else "?"
