from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekd.core.config import validate
from edgekd.core.errors import RecipeError
from edgekd.tasks.sources._scaling import ChannelScale, Scaling, fit_scale


def test_golden_bytes() -> None:
    # channel 0 holds 0 and 255: mean 0.5, deviation 0.5; channel 1 is always 51 = 0.2 * 255
    values = np.array([[[0, 255]], [[51, 51]]], np.uint8).transpose(1, 0, 2)
    scale = fit_scale(values, np.arange(1), Scaling())
    assert scale == ChannelScale(255.0, (0.5, 0.2), (0.5, 1.0))
    assert scale.apply(values).tolist() == [[[-1.0, 1.0], [0.0, 0.0]]]


@given(st.integers(0, 99), st.sampled_from([np.uint8, np.float32]))
def test_train_comes_out_with_mean_0_and_deviation_1(seed: int, dtype: type) -> None:
    rng = np.random.default_rng(seed)
    values = (rng.random((50, 3, 4, 2)) * rng.uniform(50, 255, (1, 3, 1, 1))).astype(dtype)
    rows = np.arange(10, 50)
    out = fit_scale(values, rows, Scaling()).apply(values[rows])
    assert out.dtype == np.float32
    # figures are rounded to six digits, an error of at most 5e-6 of their size, and the mean of
    # uniform numbers is less than twice their deviation
    np.testing.assert_allclose(out.mean((0, 2, 3)), 0, atol=1.2e-5)
    np.testing.assert_allclose(out.std((0, 2, 3)), 1, atol=1e-5)


def test_bytes_and_floats_agree() -> None:
    values = np.random.default_rng(0).integers(0, 256, (5000, 2, 3), dtype=np.uint8)
    rows = np.arange(len(values))
    as_bytes = fit_scale(values, rows, Scaling())
    as_floats = fit_scale(values.astype(np.float32) / 255, rows, Scaling())
    np.testing.assert_allclose(as_bytes.mean, as_floats.mean, rtol=2e-6)
    np.testing.assert_allclose(as_bytes.std, as_floats.std, rtol=2e-6)


def test_only_the_given_rows_count() -> None:
    values = np.array([[0.0], [2.0], [1000.0]], np.float32)
    assert fit_scale(values, np.array([0, 1]), Scaling()).mean == (1.0,)


def test_a_constant_feature_is_shifted_and_not_stretched() -> None:
    values = np.full((9, 1), 0.1, np.float32)
    scale = fit_scale(values, np.arange(9), Scaling())
    assert scale.std == (1.0,)
    np.testing.assert_allclose(scale.apply(values), 0, atol=1e-6)


def test_given_figures_are_used_and_none_are_used_without_standardise() -> None:
    values = np.array([[255, 0]], np.uint8)
    given_ = Scaling(mean=(0.5, 0.0), std=(0.25, 1.0))
    assert fit_scale(values, np.arange(1), given_).apply(values).tolist() == [[2.0, 0.0]]
    plain = fit_scale(values, np.arange(1), Scaling(standardise=False))
    assert plain.apply(values).tolist() == [[1.0, 0.0]]


def test_figures_for_other_channels_are_refused() -> None:
    with pytest.raises(RecipeError) as error:
        fit_scale(np.zeros((2, 3, 4, 4), np.uint8), np.arange(2), Scaling(mean=(0.5,), std=(0.5,)))
    assert str(error.value) == (
        "scaling.mean does not fit the data.\n"
        "  expected: 3 numbers, one per channel\n"
        "  got:      1"
    )


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"mean": [0.5]}, "give both `mean` and `std`, or neither"),
        ({"standardise": False, "mean": [0], "std": [1]}, "are not used with standardise: false"),
        ({"mean": [0.5], "std": [0]}, "std.0: Input should be greater than 0, got 0"),
        ({"mean": [float("nan")], "std": [1]}, "mean.0: Input should be a finite number, got nan"),
    ],
)
def test_wrong_settings(fields: dict[str, object], text: str) -> None:
    with pytest.raises(RecipeError) as error:
        validate(Scaling, fields, source="recipe.yaml")
    assert text in str(error.value)
