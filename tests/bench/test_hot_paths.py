"""The benchmarks of the hot paths must not rot: each runs once, without the clock."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_every_benchmark_runs(repo_root: Path) -> None:
    words = ["-q", "--benchmark-disable", "-p", "no:cacheprovider", "bench/test_hot_paths.py"]
    without = {k: v for k, v in os.environ.items() if k != "PYTEST_ADDOPTS"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words],
        cwd=repo_root,
        env=without,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert " passed" in done.stdout
