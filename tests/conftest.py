"""What every test stands on: fixed seeds, one thread, hypothesis without a clock, real data."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent

# Before torch is imported anywhere: several workers share few cores, and a fixed number of threads
# keeps sums in one order. Subprocesses that a test starts inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A suite started in the background inherits "ignore Ctrl-C", and so would every process that the
# tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile(
    "edgekd",
    deadline=None,  # a shared machine stalls now and then
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=bool(os.environ.get("CI")),
)
settings.load_profile("edgekd")


_START_NS = time.perf_counter_ns()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Start no further test once the time that EDGEKD_TEST_BUDGET_S allows has passed."""
    budget_s = os.environ.get("EDGEKD_TEST_BUDGET_S")
    if budget_s and (time.perf_counter_ns() - _START_NS) / 1e9 > float(budget_s):
        pytest.skip(f"the {budget_s} s that EDGEKD_TEST_BUDGET_S gives are used up")


@pytest.fixture(autouse=True)
def _seeds() -> None:
    """The same random numbers whatever ran before; torch only if a test has imported it."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  # libraries draw from the old generator
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(0)


@pytest.fixture(scope="session")
def repo_root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real data sets and models that are not part of the project."""
    given = os.environ.get("EDGEKD_SHARED_DATA")
    folder = Path(given) if given else ROOT.parent / "shared" / "data"
    if given and not folder.is_dir():
        pytest.fail(f"EDGEKD_SHARED_DATA names {given!r}, which is not a folder")
    if not folder.is_dir():
        pytest.skip(f"no data at {folder}; set EDGEKD_SHARED_DATA to run this")
    return folder


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
