"""Profiles as files, and the one way to compare two of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgekd.core.config import validate
from edgekd.core.errors import DataError, UnsupportedError
from edgekd.core.files import atomic_write
from edgekd.core.types import Profile
from edgekd.profile.percentiles import percentiles

if TYPE_CHECKING:
    from pathlib import Path

_VERSION = 1


@dataclass(frozen=True, slots=True)
class Comparison:
    """How many times faster one file is than another; None where a percentile is refused.

    Attributes:
        speedup_p50: Ratio of the certified p50.
        speedup_p90: Ratio of the certified p90.
    """

    speedup_p50: float | None
    speedup_p90: float | None


def write_profile(profile: Profile, path: Path) -> None:
    """Write a profile as JSON, whole or not at all.

    Raises:
        RunFolderError: The folder is read-only or the disk is full.
    """
    plain = profile.model_dump(mode="json")
    samples = plain.pop("samples_ns")
    head = json.dumps(plain, indent=2, allow_nan=False)
    # samples on one line: indented, a thousand of them would be a thousand lines
    atomic_write(path, f'{head[:-2]},\n  "samples_ns": {json.dumps(samples)}\n}}\n')


def read_profile(path: Path, *, measured_only: bool = False) -> Profile:
    """Read a profile.

    Args:
        path: Of the JSON file.
        measured_only: Refuse figures that no clock made, as the shipped `profiles/` must.

    Raises:
        DataError: No such file, not JSON, of another version, or not measured.
    """
    try:
        plain = json.loads(path.read_text())
    except FileNotFoundError as e:
        raise DataError(f"There is no profile {path}.") from e
    except (OSError, ValueError) as e:
        raise DataError(f"{path} is not a profile.", expected="JSON", got=str(e)) from e
    version = plain.get("schema_version") if isinstance(plain, dict) else None
    if version != _VERSION:
        raise DataError(
            f"{path} is not a profile that this edgekd reads.",
            expected=f"schema_version {_VERSION}",
            got=f"schema_version {version}",
            todo="measure again, or use the edgekd that wrote it",
        )
    profile = validate(Profile, plain, source=str(path))
    if not profile.samples_ns or min(profile.samples_ns) <= 0:
        raise DataError(
            f"{path} holds samples that no clock can have given.",
            expected="at least one sample, each above 0 ns",
        )
    if measured_only and profile.source != "measured":
        raise DataError(
            f"{path} was not measured.", expected="source: measured", got=profile.source
        )
    return profile


def compare(slower: Profile, faster: Profile) -> Comparison:
    """How many times faster `faster` is than `slower`.

    Raises:
        UnsupportedError: They were made under different conditions, or differ in their source.
    """
    if slower.source != faster.source:
        raise UnsupportedError(
            "Two profiles cannot be compared.", expected=slower.source, got=faster.source
        )
    before, after = slower.conditions.model_dump(), faster.conditions.model_dump()
    different = [key for key in before if before[key] != after[key]]
    if different:
        raise UnsupportedError(
            "Two profiles were measured under different conditions.",
            expected="; ".join(f"{key}: {before[key]}" for key in different),
            got="; ".join(f"{key}: {after[key]}" for key in different),
            todo="measure both in one run, so that they are interleaved",
        )
    a, b = percentiles(slower), percentiles(faster)
    return Comparison(
        speedup_p50=_ratio(a.p50.certified, b.p50.certified),
        speedup_p90=_ratio(a.p90.certified, b.p90.certified),
    )


def _ratio(above: float | None, below: float | None) -> float | None:
    return None if above is None or below is None else above / below
