"""Programs are compiled and run in the real runtime. `pip install '.[executorch]'` to run these.

The package is half a gigabyte, so continuous integration leaves it out.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from edgekd.backends._contract import BACKENDS
from edgekd.backends._kernels import count_kernels
from edgekd.core.errors import DataError, MissingDependencyError, RecipeError, UnsupportedError
from edgekd.core.target import load_target
from edgekd.export.onnx_file import quantized_model
from edgekd.quantize.convert import simulate
from edgekd.testing.onnx_models import INPUT, convolution_net
from tests.quantize import nets
from tests.quantize.test_convert import aware, samples

TARGET = load_target("phone-executorch-int8")
try:
    PHONE = BACKENDS.get("executorch")()
except MissingDependencyError as e:
    pytest.skip(e.message, allow_module_level=True)


@pytest.mark.parametrize("name", nets.NETS)
def test_an_int8_program_equals_the_fake_quant_student(name: str, tmp_path: Path) -> None:
    assert TARGET.scheme is not None
    student = aware(nets.trained_looking(name)).freeze()
    model = quantized_model(student, TARGET.scheme, nets.INPUT_SHAPE, batch_size=1)
    path = PHONE.build(model, TARGET, tmp_path / "student")
    assert [p.name for p in tmp_path.iterdir()] == ["student.pte"]
    inputs = samples(64, seed=5)
    with torch.no_grad():
        expected = simulate(student)(torch.from_numpy(inputs)).numpy()
    with PHONE.open(path, TARGET, threads=1) as session:
        got = np.concatenate([session.run({INPUT: x[None]})["logits"] for x in inputs])
    assert np.abs(got - expected).mean() < TARGET.tolerance.mean_abs * expected.std()
    counted = count_kernels(PHONE.layers(path, TARGET, {INPUT: inputs[:1]}, threads=1))
    assert (counted.int8, counted.float) == (len(student.weights), 0), counted.floats


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("program")
    return PHONE.build(convolution_net(quantized=True), TARGET, folder / "net")


@pytest.mark.parametrize("keep", [0, 3, 40, 2000])
def test_a_program_that_is_cut_off_is_refused(keep: int, program: Path, tmp_path: Path) -> None:
    path = tmp_path / "net.pte"
    path.write_bytes(program.read_bytes()[:keep])
    with pytest.raises(DataError, match="no whole ExecuTorch program"):
        PHONE.open(path, TARGET, threads=1)


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.pte"
    path.write_bytes(b"<html>404: not found</html>" * 10)
    with pytest.raises(DataError, match="another kind of file"):
        PHONE.open(path, TARGET, threads=1)


def test_an_unknown_operator_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="int4 codes"):
        PHONE.build(convolution_net(quantized=True, bits=4), TARGET, tmp_path / "net")
    assert list(tmp_path.iterdir()) == []


def test_options_are_refused() -> None:
    target = TARGET.model_copy(update={"options": {"threads": 2}})
    with pytest.raises(RecipeError, match="no options"):
        PHONE.check_machine(target)
