"""An ONNX file made into what a target's runtime loads, also where that cannot be run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgekd.backends._kernels import count_kernels
from edgekd.backends._onnx.file import check
from edgekd.backends._runtime import installed
from edgekd.core.errors import RecipeError, UnsupportedError
from edgekd.core.hashing import sha256_file

if TYPE_CHECKING:
    from pathlib import Path

    from edgekd.core.target import Target
    from edgekd.core.types import KernelCount


@dataclass(frozen=True, slots=True)
class Built:
    """What was made of one file.

    Attributes:
        path: The artifact.
        sha256: Of this build; another one of the same file may differ.
        size_bytes: Of the artifact.
        runtime: Name and version of what built it.
        kernels: As compiled, where this machine cannot run them; None where `edgekd profile`
            can count them as they run.
        not_run: Why it cannot be run here; "" where it can.
    """

    path: Path
    sha256: str
    size_bytes: int
    runtime: str
    kernels: KernelCount | None
    not_run: str


def build_file(path: Path, target: Target, folder: Path) -> Built:
    """Build an ONNX file for a target.

    Args:
        path: The file; data files beside it go into the artifact.
        target: What to build for; its device need not be here.
        folder: Where to; made if missing.

    Raises:
        DataError: The file is not usable.
        RecipeError: The folder is the file's own.
        MissingDependencyError: The target's runtime is not installed.
        UnsupportedError: It has the wrong version, or refuses the file.
    """
    import onnx

    check(path)
    if folder.resolve() == path.resolve().parent:
        raise RecipeError(
            f"The artifact would be written beside {path}, and might replace it.",
            expected="a folder of its own",
            todo="give one with --out",
        )
    backend, version = installed(target)
    folder.mkdir(parents=True, exist_ok=True)
    whole: bytes = onnx.load(path).SerializeToString()
    made = backend.build(whole, target, folder / path.stem)
    kernels, not_run = None, ""
    try:
        backend.check_machine(target)
    except UnsupportedError as e:
        layers = backend.layers(path, target, {}, threads=target.conditions.threads)
        kernels, not_run = count_kernels(layers), e.got
    return Built(
        path=made,
        sha256=sha256_file(made),
        size_bytes=made.stat().st_size,
        runtime=f"{target.backend} {version}",
        kernels=kernels,
        not_run=not_run,
    )
