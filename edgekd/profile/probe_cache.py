"""Check-ups kept in a file, for as long as machine, runtime and target stay the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from edgekd.core.config import Config, validate
from edgekd.core.errors import RecipeError
from edgekd.core.files import atomic_write
from edgekd.core.hashing import sha256_json
from edgekd.profile.probe import CheckUp

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from edgekd.core.target import Target

#: raised when the probes change, so that older results are not taken for theirs
_PROBES_VERSION = 2
_LARGEST_BYTES = 4 << 20


class Kept(Config):
    """A check-up and what it holds for."""

    fingerprint: str
    check_up: CheckUp


class ProbeCache(Config):
    """The file's content; keys are targets' names."""

    schema_version: Literal[1] = 1
    targets: dict[str, Kept] = {}


def fingerprint(target: Target, found: CheckUp, machine: Mapping[str, Any]) -> str:
    """Hash of all that a check-up depends on: CPU and its flags, runtime, target file, and device.

    Args:
        target: With its options and scheme.
        found: Before any probe: the runtime's version, and what this machine lacks.
        machine: From `environment()["machine"]`.
    """
    return sha256_json({
        "probes": _PROBES_VERSION,
        "version": found.version,
        "problem": found.problem,
        "target": target.model_dump(mode="json"),
        "machine": {key: machine[key] for key in ("architecture", "cpu", "cpu_flags")},
    })  # fmt: skip


def read_cache(path: Path) -> ProbeCache:
    """The check-ups in a file; an empty cache where there is no file yet.

    Raises:
        RecipeError: The file is something else, or cannot be read.
    """
    import json

    try:
        if not path.exists():
            return ProbeCache()
        if path.stat().st_size > _LARGEST_BYTES:
            raise ValueError(f"more than {_LARGEST_BYTES >> 20} MiB")
        return validate(ProbeCache, json.loads(path.read_bytes()), source=str(path))
    except (OSError, ValueError, RecursionError, RecipeError) as e:
        got = e.message if isinstance(e, RecipeError) else str(e)
        raise RecipeError(
            f"{path} is not a cache of `edgekd doctor`.",
            expected="a file that --cache wrote, or none yet",
            got=" ".join(got.split()),
            todo="give another file, or delete this one",
        ) from e


def write_cache(targets: Mapping[str, Kept], path: Path) -> None:
    """Write the check-ups so that a kill leaves the old file or the new one.

    Raises:
        RunFolderError: The place cannot be written to.
    """
    atomic_write(path, ProbeCache(targets=dict(targets)).model_dump_json(indent=2))
