"""Weights on disk: safetensors, or .pt files that hold tensors and nothing else.

This is the one place that opens .pt files, and it never lets them run code.
"""

from __future__ import annotations

import json
import warnings
import zipfile
from collections.abc import Mapping
from pickle import UnpicklingError  # noqa: TID251  # only to catch it; nothing is unpickled
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from edgekd.core.errors import DataError
from edgekd.core.files import atomic_path

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

MAX_WEIGHTS_BYTES = 16 << 30
_TORCH_SUFFIXES = (".pt", ".pth", ".th", ".bin", ".ckpt")
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_PARALLEL_PREFIX = "module."
_STEP_COUNTER = "num_batches_tracked"
_SHOWN = 4
_CONVERT = (
    "where you trust the file, load it once with torch and store the tensors alone:\n"
    "            safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"
)


def load_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a weights file by name, on the CPU.

    A checkpoint's ``{"state_dict": …}`` wrapper and the "module." that data-parallel training puts
    in front of every name are taken off.

    Args:
        path: A .safetensors file, or a .pt, .pth, .th, .bin or .ckpt file of torch.

    Raises:
        DataError: The file is missing, empty, cut off or too large, is a pickle that could run
            code, or holds something else than finite tensors.
    """
    _check_size(path)
    if path.suffix == ".safetensors":
        value: object = _load_safetensors(path)
    elif path.suffix in _TORCH_SUFFIXES:
        value = _load_torch(path)
    else:
        raise DataError(
            f"{path} does not end like a weights file.",
            expected=", ".join((".safetensors", *_TORCH_SUFFIXES)),
            got=path.suffix or "no suffix",
        )
    state = _tensors(_unwrapped(value), path)
    if all(name.startswith(_PARALLEL_PREFIX) for name in state):
        state = {name.removeprefix(_PARALLEL_PREFIX): t for name, t in state.items()}
    for name, tensor in state.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise DataError(
                f"The weights {path} are not usable: {name!r} holds NaN or infinity.",
                expected="finite numbers",
                todo="use a checkpoint from before the training diverged",
            )
    return state


def save_weights(path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors as safetensors; the same tensors and metadata give the same bytes.

    Args:
        path: Replaced in one step.
        state: By name; tensors that share memory are stored once for each name.
        metadata: Kept as JSON under the one key "edgekd" (safetensors itself stores several keys
            in random order).

    Raises:
        RunFolderError: The folder is read-only or the disk is full.
    """
    own = {
        name: tensor.detach().cpu().contiguous().clone(memory_format=torch.contiguous_format)
        for name, tensor in state.items()
    }
    with atomic_path(path) as temp:
        save_file(own, temp, {"edgekd": json.dumps(dict(metadata), sort_keys=True)})


def fill(module: nn.Module, state: Mapping[str, Tensor], *, source: str) -> None:
    """Put every weight into `module`; names and shapes have to agree exactly.

    Only the step counters of batch norm may be missing: files from before torch 0.4.1 have none,
    and nothing that a trained network computes depends on them.

    Args:
        module: Changed in place.
        state: Tensors by name.
        source: Where they come from, for errors.

    Raises:
        DataError: A name is missing or left over, or a shape differs.
    """
    wanted = module.state_dict()
    missing = [name for name in wanted if name not in state and not name.endswith(_STEP_COUNTER)]
    unexpected = [name for name in state if name not in wanted]
    differing = [
        f"{name} {tuple(state[name].shape)} for {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in state and state[name].shape != tensor.shape
    ]
    lines = [
        f"{title}: {_shortened(names)}"
        for title, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", differing),
        )
        if names
    ]
    if lines:
        raise DataError(
            f"The weights {source} are not those of {type(module).__name__}.",
            expected=f"its {len(wanted)} tensors",
            got="\n            ".join(lines),
            todo="check that architecture, its arguments and the file belong together",
        )
    module.load_state_dict({name: state.get(name, own) for name, own in wanted.items()})


def _check_size(path: Path) -> None:
    if not path.is_file():
        raise DataError(
            f"There are no weights at {str(path)!r}.",
            expected="a .safetensors file, or a .pt file that holds only tensors",
            got="a folder" if path.is_dir() else "no such file",
            todo="check the path; a relative one starts at the recipe's folder",
        )
    size = path.stat().st_size
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:  # what it would unpack to
            size = max(size, sum(item.file_size for item in archive.infolist()))
    if size == 0:
        raise DataError(f"The weights file {path} is empty.", todo="copy it again")
    if size > MAX_WEIGHTS_BYTES:
        raise DataError(
            f"The weights {path} are too large.",
            expected=f"at most {MAX_WEIGHTS_BYTES} bytes",
            got=f"{size} bytes",
        )


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError, ValueError) as e:
        raise _damaged(path, "a complete safetensors file", str(e)) from e
    return tensors


def _load_torch(path: Path) -> object:
    try:
        with warnings.catch_warnings():
            # torch warns about odd pickles before it refuses them; the refusal says it all
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251  # here
    except UnpicklingError as e:
        text = str(e)
        if "Unsupported global" in text or "Unsupported class" in text:
            what = text.partition("GLOBAL ")[2].split(" ", 1)[0]
            raise _would_run_code(path, what) from e
        if _starts_as_pickle(path):  # one that torch.save never writes
            raise _would_run_code(path, "") from e
        raise _damaged(path, "a file that torch.save wrote", _first_line(e)) from e
    except RuntimeError as e:
        if "TorchScript" in str(e):
            raise _would_run_code(path, "a TorchScript program") from e
        raise _damaged(path, "a complete file that torch.save wrote", _first_line(e)) from e
    except Exception as e:
        # torch's reader of old files fails in whatever way the garbage makes it
        raise _damaged(path, "a complete file that torch.save wrote", _first_line(e)) from e


def _unwrapped(value: object) -> object:
    if isinstance(value, Mapping):
        for key in _WRAPPERS:
            if isinstance(value.get(key), Mapping):
                return value[key]
    return value


def _tensors(value: object, path: Path) -> dict[str, Tensor]:
    if isinstance(value, Mapping):
        others = [f"{k} ({type(v).__name__})" for k, v in value.items() if not _is_weight(k, v)]
        if value and not others:
            return dict(value)
        got = _shortened(others) if others else "no tensors at all"
    else:
        got = f"a {type(value).__name__}"
    raise DataError(
        f"The weights {path} are not tensors by name.",
        expected="a state_dict, bare or under one of " + ", ".join(map(repr, _WRAPPERS)),
        got=got,
        todo="save model.state_dict()",
    )


def _is_weight(name: object, value: object) -> bool:
    return isinstance(name, str) and isinstance(value, Tensor)


def _starts_as_pickle(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(2)
    return len(head) == 2 and head[0] == 0x80 and 2 <= head[1] <= 5  # its protocol number


def _would_run_code(path: Path, what: str) -> DataError:
    return DataError(
        f"{path} is not weights: it is a pickle that could run code when loaded.",
        expected="tensors only, which weights_only=True accepts",
        got=f"it asks for {what}" if what else "",
        todo=_CONVERT,
    )


def _damaged(path: Path, expected: str, got: str) -> DataError:
    return DataError(
        f"The weights {path} cannot be read: the file is cut off, damaged or something else.",
        expected=expected,
        got=got,
        todo="copy it again",
    )


def _first_line(error: Exception) -> str:
    """The line of torch's text that says what is wrong, without its advice to drop the guard."""
    text = str(error).partition("WeightsUnpickler error:")[2] or str(error)
    line = (text.strip().splitlines() or [""])[0].partition(". ")[0]
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


def _shortened(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
