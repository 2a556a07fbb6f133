"""Small and read-only disks, where the machine lets a test mount them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mount a tmpfs: ``mounted("size=1m")``; a second call with "remount,ro" changes it."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount, umount = shutil.which("mount"), shutil.which("umount")
    is_mounted = False

    def call(options: str) -> Path:
        nonlocal is_mounted
        if mount is None or umount is None:
            pytest.skip("this machine has no mount command")
        command = [mount, "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"mounting a tmpfs is not permitted here: {done.stderr.strip()}")
        is_mounted = True
        return folder

    yield call
    if is_mounted and umount:
        subprocess.run([umount, str(folder)], check=True)
