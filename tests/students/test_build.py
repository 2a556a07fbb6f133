from __future__ import annotations

import pytest

from edgekd.core.errors import RecipeError
from edgekd.students._contract import FAMILIES, NetSpec


@pytest.mark.parametrize("name", ["resnet", "mobilenet"])
def test_image_families_refuse_vectors(name: str) -> None:
    with pytest.raises(RecipeError) as error:
        FAMILIES.build(name).build(NetSpec((64,), 10))
    assert f"The student family {name!r} is for images." in str(error.value)
    assert "got:      (64,)" in str(error.value)
    assert "take `mlp` for vectors" in str(error.value)


@pytest.mark.parametrize("name", ["resnet", "mobilenet"])
def test_image_families_refuse_images_smaller_than_their_strides(name: str) -> None:
    with pytest.raises(RecipeError) as error:
        FAMILIES.build(name).build(NetSpec((1, 3, 9), 10))
    assert f"The student {name!r} reduces the image more than its size allows." in str(error.value)
    assert "at least 4x4 pixels" in str(error.value)
    assert "got:      3x9" in str(error.value)


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (
            {"name": "resnet", "widths": [8, 16], "depths": [1]},
            "widths names 2 stages and depths 1; give both the same length",
        ),
        (
            {"name": "mobilenet", "widths": [8], "strides": [1, 2]},
            "widths names 1 blocks and strides 2; give both the same length",
        ),
        ({"name": "resnet", "widths": [], "depths": []}, "widths"),
        ({"name": "mlp", "widths": [0]}, "greater than or equal to 1"),
        ({"name": "mlp", "dropout": 1.0}, "dropout"),
        ({"name": "mobilenet", "activation": "gelu"}, "'relu' or 'relu6'"),
        ({"name": "resnet", "width": [8]}, "Did you mean 'widths'?"),
    ],
)
def test_wrong_choices_are_refused(spec: dict[str, object], text: str) -> None:
    with pytest.raises(RecipeError) as error:
        FAMILIES.build(spec)
    assert text in str(error.value)
