"""The other ways to give a teacher, data, method and target, each through a whole run."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from edgekd.core.config import dump_yaml
from edgekd.core.target import load_target
from edgekd.recipe import load_recipe
from tests.end_to_end.conftest import CLASSES, FEATURES

if TYPE_CHECKING:
    from tests.end_to_end.conftest import Finished

Compress = Callable[..., "Finished"]


def test_two_seeds_and_a_float_target_beside_an_int8_one(compress_vectors: Compress) -> None:
    run = compress_vectors(seeds=2, targets=["x86-onnxruntime-fp32", "x86-onnxruntime-int8"])
    report = run.report
    assert report.met
    float_target, int8_target = report.targets
    assert (float_target.precision, int8_target.precision) == ("float32", "int8")
    assert [rung.name for rung in float_target.ladder] == [
        "torch float", "ONNX reference", "x86-onnxruntime-fp32",
    ]  # fmt: skip
    assert (float_target.kernels.int8, float_target.kernels.float) == (0, 2)
    assert (int8_target.kernels.int8, int8_target.kernels.float) == (2, 0)
    # both stand beside the same float teacher
    assert float_target.baseline == int8_target.baseline
    for arm in report.arms:
        assert len(arm.scores) == 2
        assert arm.chosen_seed in (0, 1, None)
    shas = {name: stage["files"] for name, stage in run.stages().items()}
    assert shas["distilled/seed-0"] != shas["distilled/seed-1"]


def test_post_training_alone(compress_vectors: Compress) -> None:
    run = compress_vectors(quantize={"method": "post_training"})
    assert [arm.name for arm in run.report.arms] == ["control", "distilled", "post_training"]
    assert run.report.arms[-1].chosen_seed == 0
    assert run.report.targets[0].kernels.int8 == 2
    assert not any(name.startswith("quantized_distillation") for name in run.stages())


@pytest.mark.slow
def test_weights_have_seven_bits_where_the_cpu_would_overflow(
    vectors: Path, compress_vectors: Compress
) -> None:
    values = load_target("x86-onnxruntime-int8").model_dump(mode="json")
    values |= {"name": "mine"}
    values["scheme"] |= {"full_range_with": ["an_instruction_of_the_future"]}
    (vectors / "mine.yaml").write_text(dump_yaml(values))
    run = compress_vectors(
        targets=["mine.yaml", "x86-onnxruntime-int8"], quantize={"method": "post_training"}
    )
    held, whole = (target.storage for target in run.report.targets)
    assert held is not None
    assert whole is not None
    assert held.stored_bytes is not None
    assert whole.stored_bytes is not None
    assert held.stored_bytes < whole.stored_bytes
    [warning] = [line for line in run.report.warnings if "7 bits" in line]
    assert warning.startswith("mine: weights have 7 bits: its CPU has none of an_instruction")


MODULE = textwrap.dedent(
    """
    import torch
    from torch import nn

    class WithToken(nn.Module):
        '''Its learned offset is a bare parameter, as transformers have them.'''

        def __init__(self, width):
            super().__init__()
            self.token = nn.Parameter(torch.zeros(1, 12))
            self.layers = nn.Sequential(
                nn.Linear(12, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 4)
            )

        def forward(self, x):
            return self.layers(x + self.token)

    def build(width):
        return WithToken(width)
    """
)


def test_a_teacher_of_the_users_own_python(vectors: Path, compress_vectors: Compress) -> None:
    (vectors / "mynet.py").write_text(MODULE)
    space: dict[str, Any] = {}
    exec(MODULE, space)  # noqa: S102  # the very text that the run imports
    torch.manual_seed(0)
    save_file(space["build"](24).state_dict(), vectors / "teacher.safetensors")
    teacher = {
        "factory": "mynet:build",
        "kwargs": {"width": 24},
        "weights": "teacher.safetensors",
    }
    feature = {"name": "feature_mse", "student_layer": "head", "teacher_layer": "layers.3"}
    distill = {"epochs": 2, "batch_size": 16, "objectives": ["hard_label", feature]}
    report = compress_vectors(teacher=teacher, distill=distill).report
    assert report.teacher.title == "mynet:build with teacher.safetensors"
    assert report.teacher.parameters == 12 + 12 * 24 + 24 + 48 + 24 * 4 + 4
    # a figure that cannot be counted is left out with its reason; the run goes on
    assert report.teacher.macs is None
    assert report.macs_ratio is None
    assert "no rule for (top) (WithToken)" in " ".join(report.warnings)
    assert report.targets[0].baseline is not None
    assert report.targets[0].baseline.name == "teacher@onnxruntime-float-1t-b1"


def export(
    path: Path, *, batch: int | None = None, dtype: torch.dtype = torch.float32, external: bool
) -> nn.Module:
    """A small torch network as ONNX; `batch` None for any."""
    torch.manual_seed(0)
    hidden = 256 if external else 16  # the exporter keeps small tensors in the file
    net = nn.Sequential(nn.Linear(FEATURES, hidden), nn.ReLU(), nn.Linear(hidden, CLASSES))
    net = net.to(dtype).eval()
    dynamic = {"input": {0: torch.export.Dim("n")}} if batch is None else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's exporter about itself
        torch.onnx.export(
            net,
            (torch.zeros(batch or 2, FEATURES, dtype=dtype),),
            path,
            dynamo=True,
            input_names=["input"],
            dynamic_shapes=dynamic,
            external_data=external,
            verbose=False,
        )
    return net


def test_a_teacher_as_an_onnx_file(vectors: Path, compress_vectors: Compress) -> None:
    net = export(vectors / "teacher.onnx", external=False)
    run = compress_vectors(teacher={"onnx": "teacher.onnx"})
    report = run.report
    assert report.teacher.title == "ONNX file teacher.onnx"
    assert (report.teacher.parameters, report.teacher.macs) == (None, None)
    assert report.targets[0].baseline is not None
    assert "not measured" not in " ".join(report.warnings)
    # what was timed as the teacher is the user's own file
    baseline = run.folder / report.targets[0].baseline.artifact
    assert baseline.read_bytes() == (vectors / "teacher.onnx").read_bytes()
    # and its score is the network's own
    recipe, folder = load_recipe(vectors / "recipe.yaml")
    test = recipe.data.load(folder).test
    with torch.no_grad():
        decided = net(torch.from_numpy(test.batch(np.arange(len(test))))).argmax(1).numpy()
    assert report.teacher_score == pytest.approx((decided == test.labels).mean())


def test_a_teacher_for_another_batch_is_asked_but_not_timed(
    vectors: Path, compress_vectors: Compress
) -> None:
    export(vectors / "teacher.onnx", batch=3, external=False)
    report = compress_vectors(teacher={"onnx": "teacher.onnx"}).report
    assert report.targets[0].baseline is None
    assert report.targets[0].speedup_p90 is None
    assert report.student_size_ratio is None
    (warning,) = [w for w in report.warnings if "not measured" in w]
    assert "teacher.onnx does not take the inputs that the student is timed on" in warning
    assert "3 x 12" in warning


@pytest.mark.slow
def test_a_teacher_in_double_precision_is_asked_but_not_timed(
    vectors: Path, compress_vectors: Compress
) -> None:
    export(vectors / "teacher.onnx", dtype=torch.float64, external=False)
    report = compress_vectors(teacher={"onnx": "teacher.onnx"}).report
    assert report.targets[0].baseline is None
    assert "float64" in " ".join(report.warnings)


@pytest.mark.slow
def test_a_teacher_with_its_weights_in_another_file_is_timed_in_one(
    vectors: Path, compress_vectors: Compress
) -> None:
    export(vectors / "teacher.onnx", external=True)
    assert (vectors / "teacher.onnx.data").stat().st_size > 4096
    report = compress_vectors(
        teacher={"onnx": "teacher.onnx"}, targets=["x86-onnxruntime-int8", "x86-openvino-int8"]
    ).report
    for target in report.targets:
        assert target.baseline is not None
        assert target.baseline.size_bytes > (vectors / "teacher.onnx.data").stat().st_size


def test_a_target_of_the_users_own_with_options(vectors: Path, compress_vectors: Compress) -> None:
    values = load_target("x86-onnxruntime-int8").model_dump(mode="json")
    values |= {"name": "mine", "conditions": {"threads": 1, "batch_size": 3}}
    exact = {"session.x64quantprecision": "1"}  # without it CPUs without VNNI overflow
    values["options"] = {"session.disable_prepacking": "1", **exact}
    (vectors / "mine.yaml").write_text(dump_yaml(values))
    run = compress_vectors(targets=["mine.yaml"])
    (target,) = run.report.targets
    assert target.target == "mine"
    assert target.measured.conditions.batch_size == 3
    assert target.baseline is not None
    assert target.baseline.name == "teacher@onnxruntime-float-1t-b3"
    # an option of the runtime changes what is measured, not what is made
    values["options"] = exact
    (vectors / "mine.yaml").write_text(dump_yaml(values))
    again = compress_vectors(targets=["mine.yaml"]).report
    redone = {stage.name for stage in again.stages if not stage.reused}
    assert {"proof/mine", "profile", "memory/mine"} <= redone
    assert not {"distilled/seed-0", "export/artifact/mine"} & redone
