"""A recipe so small that a whole run takes seconds, and the command line as a user meets it."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekd.cli.main import run
from edgekd.core.config import dump_yaml

RECIPE: dict[str, Any] = {
    "name": "tiny",
    "seeds": 1,
    "threads": 1,
    "data": {"name": "arrays", "path": "data.npz"},
    "teacher": {
        "family": {"name": "mlp", "widths": [16]},
        "train": {"epochs": 4, "batch_size": 16},
    },
    "student": {"name": "mlp", "widths": [8]},
    "distill": {"epochs": 4, "batch_size": 16},
    "quantize": {"train": {"epochs": 2, "batch_size": 16, "warmup_epochs": 0}},
    "targets": ["x86-onnxruntime-int8"],
    "budgets": ["p90<=1s"],
    "profile": {"percentile": 90, "min_duration_s": 0},
}
CLASSES, FEATURES, SAMPLES = 4, 12, 400


@dataclass(frozen=True)
class Said:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


def samples() -> dict[str, np.ndarray]:
    """Four clouds of points, easy to tell apart."""
    rng = np.random.default_rng(0)
    y = np.arange(SAMPLES) % CLASSES
    x = rng.normal(size=(CLASSES, FEATURES))[y] * 2 + rng.normal(size=(SAMPLES, FEATURES))
    return {"x": x.astype(np.float32), "y": y}


@pytest.fixture
def data() -> dict[str, np.ndarray]:
    return samples()


@pytest.fixture
def write_recipe(tmp_path: Path) -> Callable[..., Path]:
    """Write ``tiny.yaml`` and its data; dotted names change fields, None removes them."""

    def call(changes: dict[str, Any] | None = None, **arrays: np.ndarray) -> Path:
        recipe = copy.deepcopy(RECIPE)
        for path, value in (changes or {}).items():
            *parents, last = path.split(".")
            here = recipe
            for key in parents:
                here = here[key]
            if value is None:
                del here[last]
            else:
                here[last] = value
        np.savez(tmp_path / "data.npz", **(arrays or samples()))
        (tmp_path / "tiny.yaml").write_text(dump_yaml(recipe))
        return tmp_path / "tiny.yaml"

    return call


@pytest.fixture
def edgekd(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Said]:
    """Run a command line in `tmp_path`, in this process."""
    monkeypatch.chdir(tmp_path)

    def call(*args: str | Path) -> Said:
        capsys.readouterr()
        path = list(sys.path)
        code = run([str(a) for a in args])
        assert sys.path == path
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return Said(code, out, err)

    return call
