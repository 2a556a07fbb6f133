"""A student on a phone's runtime: an artifact that is no ONNX file. Needs the `litert` extra."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest

import edgekd
from edgekd.backends._contract import BACKENDS
from edgekd.core.errors import MissingDependencyError
from edgekd.core.target import load_target
from tests.end_to_end.conftest import IMAGES

try:
    PHONE = BACKENDS.get("litert")()
except MissingDependencyError as e:
    pytest.skip(e.message, allow_module_level=True)

RECIPE = {
    **copy.deepcopy(IMAGES),
    "distill": {"epochs": 5, "batch_size": 64},
    "targets": ["phone-litert-int8"],
    "budgets": ["p90<=1s", "size<=1MiB"],
}


@pytest.mark.slow
def test_an_int8_student_is_proven_and_delivered_as_a_tflite_file(tmp_path: Path) -> None:
    report = edgekd.compress(RECIPE, out=tmp_path / "run")
    (found,) = report.targets
    assert found.met
    assert [rung.ok for rung in found.ladder] == [None, None, True, True]
    assert (found.kernels.float, found.kernels.unfused) == (0, 0)
    path = tmp_path / "run" / found.measured.artifact
    assert path.name == "phone-litert-int8.tflite"
    target = load_target("phone-litert-int8")
    with PHONE.open(path, target, threads=1) as session:
        logits = session.run({"input": np.zeros((1, 1, 8, 8), np.float32)})["logits"]
    assert logits.shape == (1, 10)
