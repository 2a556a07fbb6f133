"""A quantized student on disk: one safetensors file, read back onto the same float graph."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import TypeAdapter

from edgekd.core.errors import DataError
from edgekd.core.files import atomic_path
from edgekd.core.types import Affine, Granularity, QuantizedStudent

if TYPE_CHECKING:
    from pathlib import Path

    from torch import fx

_GRANULARITY: TypeAdapter[Any] = TypeAdapter(Granularity)


def save(student: QuantizedStudent, path: Path) -> None:
    """Write weights, scales and zero points; the meta data say what they belong to."""
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
        for name, affine in encodings.items():
            assert isinstance(affine, Affine)
            tensors[f"{group}.scale.{name}"] = torch.from_numpy(affine.scale.copy())
            tensors[f"{group}.zero_point.{name}"] = torch.from_numpy(affine.zero_point.copy())
            meta[group][name] = {
                "bits": affine.bits,
                "signed": affine.signed,
                "narrow": affine.narrow,
                "granularity": affine.granularity.model_dump(),
            }
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

    def encodings(group: str) -> dict[str, Affine]:
        return {
            name: Affine(
                bits=item["bits"],
                signed=item["signed"],
                granularity=_GRANULARITY.validate_python(item["granularity"]),
                scale=np.asarray(tensors[f"{group}.scale.{name}"].numpy(), np.float32),
                zero_point=np.asarray(tensors[f"{group}.zero_point.{name}"].numpy(), np.int32),
                narrow=item["narrow"],
            )
            for name, item in meta[group].items()
        }

    return QuantizedStudent(
        graph=graph.eval(),
        weights=dict(encodings("weights")),
        activations=encodings("activations"),
        skipped=meta["skipped"],
        activation_ranges=meta["activation_ranges"],
    )
