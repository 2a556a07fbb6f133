from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekd.core.config import validate
from edgekd.core.errors import RecipeError
from edgekd.distill.settings import Augment, TrainSettings


def test_a_view_repeats_after_views_epochs() -> None:
    augment = Augment(crop_px=2, views=3)
    assert [augment.view_of(e) for e in range(7)] == [0, 1, 2, 0, 1, 2, 0]


def test_zero_views_means_a_fresh_one_every_epoch() -> None:
    augment = Augment(flip=True, views=0)
    assert [augment.view_of(e) for e in range(4)] == [0, 1, 2, 3]
    assert augment.view_count(4) == 4


@given(
    st.builds(Augment, crop_px=st.integers(0, 4), flip=st.booleans(), views=st.integers(0, 9)),
    st.integers(1, 40),
)
def test_view_count_counts_the_views_that_are_used(augment: Augment, epochs: int) -> None:
    assert augment.view_count(epochs) == len({augment.view_of(e) for e in range(epochs)})


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"warmup_epochs": 5, "epochs": 3}, "warmup_epochs is 5, more than the 3 epochs"),
        ({"momentum": 0}, "nesterov needs a momentum above 0"),
        ({"learning_rate": 0}, "learning_rate: Input should be greater than 0, got 0"),
        ({"learning_rate": float("nan")}, "learning_rate: "),
        ({"batch_size": 1}, "batch_size: Input should be greater than or equal to 2, got 1"),
        ({"optimizer": "lion"}, "optimizer: Input should be 'sgd' or 'adamw', got 'lion'"),
        ({"epoch": 3}, "epoch: no such field. Did you mean 'epochs'?"),
        ({"augment": {"crop": 1}}, "augment.crop: no such field. Did you mean 'crop_px'?"),
    ],
)
def test_wrong_fields_are_refused_by_name(fields: dict[str, object], text: str) -> None:
    with pytest.raises(RecipeError) as error:
        validate(TrainSettings, fields, source="recipe.yaml")
    assert text in str(error.value)
