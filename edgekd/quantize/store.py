"""A quantized student on disk: one safetensors file, read back onto the same float graph."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from edgekd.core.errors import DataError
from edgekd.core.files import atomic_path
from edgekd.core.types import Affine, Codebook, Granularity, QuantizedStudent

if TYPE_CHECKING:
    from pathlib import Path

    from torch import fx

    from edgekd.core.types import Encoding

_KINDS: dict[str, type[Affine | Codebook]] = {"Affine": Affine, "Codebook": Codebook}
#: fields that hold arrays
_ARRAYS = ("scale", "zero_point", "offset", "centroids")
_GRANULARITY: TypeAdapter[Any] = TypeAdapter(Granularity)


def save(student: QuantizedStudent, path: Path) -> None:
    """Write weights and encodings; the meta data say what the arrays belong to."""
    from safetensors.torch import save_file

    tensors = {f"graph.{k}": v.contiguous() for k, v in student.graph.state_dict().items()}
    meta: dict[str, Any] = {
        "skipped": dict(student.skipped),
        "activation_ranges": student.activation_ranges,
        "weights": {},
        "activations": {},
    }
    import torch

    for group, encodings in (("weights", student.weights), ("activations", student.activations)):
        for name, encoding in encodings.items():
            item: dict[str, Any] = {"kind": type(encoding).__name__}
            for field in fields(encoding):
                value = getattr(encoding, field.name)
                if field.name in _ARRAYS and value is not None:
                    tensors[f"{group}.{field.name}.{name}"] = torch.from_numpy(value.copy())
                elif field.name == "granularity":
                    item["granularity"] = value.model_dump()
                elif value is not None:
                    item[field.name] = value
            meta[group][name] = item
    with atomic_path(path) as temp:
        save_file(tensors, temp, metadata={"edgekd": json.dumps(meta, sort_keys=True)})


def load(path: Path, graph: fx.GraphModule) -> QuantizedStudent:
    """Read it back onto `graph`: the same family, traced and folded; filled in place.

    Raises:
        DataError: The file is damaged or belongs to another graph.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            meta = json.loads((file.metadata() or {})["edgekd"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        state = {k.removeprefix("graph."): v for k, v in tensors.items() if k[:6] == "graph."}
        graph.load_state_dict(state)
    except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as e:
        raise DataError(
            f"{path} does not hold a quantized student of this recipe.",
            got=str(e).splitlines()[0],
            todo="remove the file; the stage is done again",
        ) from e

    def encodings(group: str) -> dict[str, Any]:
        return {
            name: _encoding(item, {f: tensors.get(f"{group}.{f}.{name}") for f in _ARRAYS})
            for name, item in meta[group].items()
        }

    return QuantizedStudent(
        graph=graph.eval(),
        weights=encodings("weights"),
        activations=encodings("activations"),
        skipped=meta["skipped"],
        activation_ranges=meta["activation_ranges"],
    )


def _encoding(item: dict[str, Any], tensors: dict[str, Any]) -> Encoding:
    values = {key: value for key, value in item.items() if key != "kind"}
    values["granularity"] = _GRANULARITY.validate_python(item["granularity"])
    values |= {field: t.numpy() for field, t in tensors.items() if t is not None}
    return _KINDS[item["kind"]](**values)
