"""Values of the objectives against numbers worked out by hand or by another route."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax
from torch import Tensor, nn

from edgekd.core.errors import RecipeError
from edgekd.distill.objectives._contract import LOGITS, OBJECTIVES
from edgekd.distill.objectives.feature_mse import FeatureMSE
from edgekd.distill.objectives.hard_label import HardLabel
from edgekd.distill.objectives.logits_kl import LogitsKL


def _logits(*rows: list[float]) -> dict[str, Tensor]:
    return {LOGITS: torch.tensor(rows)}


def test_hard_label_of_a_known_case() -> None:
    # softmax of (ln 1, ln 2, ln 5) is (1/8, 2/8, 5/8)
    student = _logits([0.0, math.log(2), math.log(5)])
    label = torch.tensor([2])
    assert HardLabel()(student, {}, label).item() == pytest.approx(-math.log(5 / 8))
    spread = -(math.log(1 / 8) + math.log(2 / 8) + math.log(5 / 8)) / 3
    smooth = HardLabel(label_smoothing=0.3)(student, {}, label).item()
    assert smooth == pytest.approx(0.7 * -math.log(5 / 8) + 0.3 * spread)


def test_logits_kl_of_a_known_case() -> None:
    # teacher (1/2, 1/2), student (1/4, 3/4) at T = 1: ln(2)/2 + ln(2/3)/2
    teacher, student = _logits([0.0, 0.0]), _logits([0.0, math.log(3)])
    value = LogitsKL(temperature=1)(student, teacher, torch.tensor([0])).item()
    assert value == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3))


@given(st.floats(0.5, 20), st.integers(1, 6), st.integers(2, 9), st.integers(0, 1000))
def test_logits_kl_is_t_squared_times_the_mean_divergence(
    temperature: float, batch: int, classes: int, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    s, t = draw.normal(0, 3, (2, batch, classes))
    p = softmax(t / temperature, axis=1)
    divergence = p * (log_softmax(t / temperature, axis=1) - log_softmax(s / temperature, axis=1))
    expected = temperature**2 * divergence.sum(1).mean()
    objective = LogitsKL(temperature=temperature)
    tensors = [{LOGITS: torch.from_numpy(x).float()} for x in (s, t)]
    # float32, and T² amplifies its rounding
    value = objective(*tensors, torch.zeros(batch, dtype=torch.long)).item()
    assert value == pytest.approx(expected, rel=1e-3, abs=1e-6 * temperature**2)


def test_at_high_temperature_logits_kl_is_a_squared_distance() -> None:
    # Hinton et al., section 2.1: zero-mean logits, T large: (1 / 2C) * sum (s - t)²
    torch.manual_seed(0)
    s, t = torch.randn(2, 5, 4).double()
    s, t = s - s.mean(1, keepdim=True), t - t.mean(1, keepdim=True)
    value = LogitsKL(temperature=200.0)(
        {LOGITS: s.float()}, {LOGITS: t.float()}, torch.zeros(5, dtype=torch.long)
    )
    expected = ((s - t) ** 2).sum(1).mean() / (2 * 4)
    assert value.item() == pytest.approx(expected.item(), rel=0.05)


def test_feature_mse_of_a_known_case() -> None:
    objective = FeatureMSE(student_layer="a", teacher_layer="b")
    student, teacher = {"a": torch.tensor([[1.0, 2.0]])}, {"b": torch.tensor([[3.0, 1.0]])}
    assert objective(student, teacher, torch.tensor([0])).item() == (4 + 1) / 2


@pytest.mark.parametrize(
    ("student", "teacher", "kind"),
    [
        ((4, 7, 7), (4, 7, 7), None),
        ((4, 7, 7), (9, 7, 7), nn.Conv2d),
        ((16,), (16,), None),
        ((16,), (32,), nn.Linear),
    ],
)
def test_a_projector_exists_where_widths_differ(
    student: tuple[int, ...], teacher: tuple[int, ...], kind: type[nn.Module] | None
) -> None:
    projector = FeatureMSE(student_layer="a", teacher_layer="b").projector(student, teacher)
    if kind is None:
        assert projector is None
    else:
        assert isinstance(projector, kind)
        assert projector(torch.zeros(2, *student)).shape == (2, *teacher)


@pytest.mark.parametrize(
    ("student", "teacher"), [((4, 7, 7), (4, 14, 14)), ((4,), (4, 7, 7)), ((4, 7, 7), (8, 7, 8))]
)
def test_features_of_another_resolution_are_refused(
    student: tuple[int, ...], teacher: tuple[int, ...]
) -> None:
    with pytest.raises(RecipeError) as error:
        FeatureMSE(student_layer="a", teacher_layer="b").projector(student, teacher)
    text = str(error.value)
    assert "feature_mse cannot compare 'a' of the student with 'b' of the teacher." in text
    assert f"{student} in the student, {teacher} in the teacher" in text


def test_features_that_are_neither_vectors_nor_maps_are_refused() -> None:
    with pytest.raises(RecipeError, match="feature_mse cannot read 'a'"):
        FeatureMSE(student_layer="a", teacher_layer="b").projector((4, 7), (4, 7))


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ({"name": "logits_kl", "temperature": 0}, "temperature"),
        ({"name": "logits_kl", "temprature": 2}, "Did you mean 'temperature'?"),
        ({"name": "hard_label", "label_smoothing": 1}, "label_smoothing"),
        ({"name": "feature_mse", "student_layer": "a"}, "teacher_layer"),
        ({"name": "feature_mse", "student_layer": "", "teacher_layer": "b"}, "student_layer"),
    ],
)
def test_wrong_fields_are_refused(spec: dict[str, object], text: str) -> None:
    with pytest.raises(RecipeError) as error:
        OBJECTIVES.build(spec)
    assert text in str(error.value)
