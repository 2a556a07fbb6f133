"""One small run that every test here looks at, and the command line as a user meets it."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgekd
from edgekd.cli.main import run
from edgekd.core.config import dump_yaml
from edgekd.core.ledger import Ledger
from edgekd.report.model import Report
from tests.profile.transports.conftest import sshd as sshd

#: both runtimes, networks with a residual, images that are really of digits; trained just enough
#: that few decisions are ties, which a rounding may flip
IMAGES: dict[str, Any] = {
    "name": "images",
    "seeds": 1,
    "threads": 1,
    "data": {"name": "digits"},
    "teacher": {
        "family": {"name": "resnet", "widths": [16], "depths": [1]},
        "train": {"epochs": 6, "batch_size": 64},
    },
    "student": {"name": "resnet", "widths": [8], "depths": [1]},
    "distill": {"epochs": 12, "batch_size": 64},
    "quantize": {"train": {"epochs": 2, "batch_size": 64}},
    "targets": ["x86-onnxruntime-int8", "x86-openvino-int8"],
    "budgets": ["p90<=1s", "size<=1MiB", "peak_memory<=8GiB", "accuracy_drop<=100pt"],
    "profile": {"percentile": 90, "min_duration_s": 0},
    "parity": {"reference_samples": 8},
}

#: smaller still: vectors in an archive, one runtime
VECTORS: dict[str, Any] = {
    "name": "vectors",
    "seeds": 1,
    "threads": 1,
    "data": {"name": "arrays", "path": "data.npz"},
    "teacher": {
        "family": {"name": "mlp", "widths": [16]},
        "train": {"epochs": 4, "batch_size": 16},
    },
    "student": {"name": "mlp", "widths": [8]},
    "distill": {"epochs": 4, "batch_size": 16},
    "quantize": {"train": {"epochs": 1, "batch_size": 16}},
    "targets": ["x86-onnxruntime-int8"],
    "budgets": ["p90<=1s"],
    "profile": {"percentile": 90, "min_duration_s": 0},
}
CLASSES, FEATURES, SAMPLES = 4, 12, 400


@dataclass(frozen=True)
class Finished:
    """A run folder and what it gave."""

    folder: Path
    report: Report

    def stages(self) -> dict[str, dict[str, Any]]:
        """The newest `stage_done` event of each stage."""
        events = Ledger(self.folder / "ledger.jsonl").events
        return {e["name"]: e for e in events if e["event"] == "stage_done"}


@dataclass(frozen=True)
class Said:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The run of `IMAGES`. Nobody may change its folder."""
    folder = tmp_path_factory.mktemp("images") / "run"
    return Finished(folder, edgekd.compress(IMAGES, out=folder))


@pytest.fixture
def images_again(images: Finished, tmp_path: Path) -> Path:
    """A copy of that run folder, to work on."""
    return Path(shutil.copytree(images.folder, tmp_path / "run"))


@pytest.fixture
def vectors(tmp_path: Path) -> Path:
    """A folder with the data of `VECTORS`: four clouds of points, easy to tell apart."""
    rng = np.random.default_rng(0)
    y = np.arange(SAMPLES) % CLASSES
    x = rng.normal(size=(CLASSES, FEATURES))[y] * 2 + rng.normal(size=(SAMPLES, FEATURES))
    np.savez(tmp_path / "data.npz", x=x.astype(np.float32), y=y)
    return tmp_path


@pytest.fixture
def compress_vectors(vectors: Path) -> Callable[..., Finished]:
    """Run `VECTORS` with other values of some top-level fields, from a file beside its data."""

    def call(**changes: Any) -> Finished:
        recipe = {**copy.deepcopy(VECTORS), **changes}
        (vectors / "recipe.yaml").write_text(dump_yaml(recipe))
        report = edgekd.compress(vectors / "recipe.yaml", out=vectors / "run")
        return Finished(vectors / "run", report)

    return call


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Said]:
    """Run a command line in `tmp_path`, in this process."""
    monkeypatch.chdir(tmp_path)

    def call(*args: str | Path) -> Said:
        capsys.readouterr()
        code = run([str(a) for a in args])
        return Said(code, *capsys.readouterr())

    return call
