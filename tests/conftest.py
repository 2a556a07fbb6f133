"""What every test stands on: fixed seeds, one thread, hypothesis without a clock, real data."""

from __future__ import annotations

import os
import random
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent

# Before torch is imported anywhere: several workers share few cores, and a fixed number of threads
# keeps sums in one order. Subprocesses that a test starts inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

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
