"""Measured profiles kept for good: files that are only added, each under its hash in an index."""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgekd.core.errors import DataError
from edgekd.core.hashing import sha256_file
from edgekd.core.ledger import Ledger
from edgekd.profile.store import read_profile, write_profile

if TYPE_CHECKING:
    from pathlib import Path

    from edgekd.core.types import Profile

INDEX = "index.jsonl"
_EVENT = "kept"


@dataclass(frozen=True, slots=True)
class Kept:
    """One profile on the shelf.

    Attributes:
        file: Relative to the shelf's folder.
        title: What was measured, in words.
        created_utc: When it was put there, ISO 8601.
        profile: The samples and how they were made.
    """

    file: str
    title: str
    created_utc: str
    profile: Profile


def keep(profile: Profile, folder: Path, *, title: str) -> Path:
    """Add a profile to the shelf; nothing that stands there is ever changed.

    Raises:
        DataError: It was not measured, or the shelf is damaged.
        RunFolderError: The folder is read-only or the disk is full.
    """
    if profile.source != "measured":
        raise DataError(
            "Only measured profiles are kept.", expected="source: measured", got=profile.source
        )
    kept(folder)  # never write onto a damaged shelf
    index = Ledger(folder / INDEX)
    words = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:48] or "profile"
    file = f"{profile.target}/{len(index.events):04d}-{words}.json"
    write_profile(profile, folder / file)
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    sha256 = sha256_file(folder / file)
    index.append(_EVENT, file=file, title=title, created_utc=created, sha256=sha256)
    return folder / file


def kept(folder: Path) -> list[Kept]:
    """Everything on the shelf, oldest first.

    Raises:
        DataError: A file is missing, was changed, stands there without an entry, or was not
            measured.
        RunFolderError: The index is damaged.
    """
    index = Ledger(folder / INDEX)
    found = []
    for entry in index.events:
        path = folder / entry["file"]
        if not path.is_file() or sha256_file(path) != entry["sha256"]:
            raise DataError(
                f"{path} is not what was kept there.",
                expected=f"a file with SHA-256 {entry['sha256'][:16]}…",
                got="another file" if path.is_file() else "no file",
                todo="bring it back; a kept profile is never edited",
            )
        profile = read_profile(path, measured_only=True)
        found.append(Kept(entry["file"], entry["title"], entry["created_utc"], profile))
    known = {entry["file"] for entry in index.events}
    strays = [
        p for p in sorted(folder.glob("*/*.json")) if str(p.relative_to(folder)) not in known
    ]
    if strays:
        raise DataError(
            f"{strays[0]} stands on the shelf and the index does not know it.",
            todo="add profiles with `edgekd profile --keep`, never by hand",
        )
    return found
