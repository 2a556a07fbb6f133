from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgekd.core.errors import RecipeError
from edgekd.distill.augment import apply_view, check_augment
from edgekd.distill.settings import Augment

_CROP_AND_FLIP = Augment(crop_px=2, flip=True)


def _images(count: int, channels: int = 2) -> torch.Tensor:
    return torch.arange(count * channels * 7 * 6).reshape(count, channels, 7, 6).float()


@given(st.permutations(range(12)), st.integers(1, 12), st.integers(0, 50), st.integers(0, 2**63))
def test_a_sample_looks_the_same_in_whatever_batch_it_comes(
    order: list[int], size: int, view: int, seed: int
) -> None:
    images, all_indices = _images(12), np.arange(12)
    together = apply_view(images, all_indices, _CROP_AND_FLIP, view=view, seed=seed)
    picked = np.array(order[:size])
    alone = apply_view(images[picked], picked, _CROP_AND_FLIP, view=view, seed=seed)
    assert torch.equal(alone, together[picked])


def test_views_samples_and_seeds_differ() -> None:
    image = _images(1).expand(400, -1, -1, -1)
    indices = np.arange(400)
    base = apply_view(image, indices, _CROP_AND_FLIP, view=0, seed=0)
    # 5 x 5 crops, mirrored or not: 50 looks; all of them come up in 400 samples
    # (a given one is missed with probability 0.98^400 = 0.03 %)
    assert len({tuple(b.flatten().tolist()) for b in base}) == 50
    for other in (
        apply_view(image, indices, _CROP_AND_FLIP, view=1, seed=0),
        apply_view(image, indices, _CROP_AND_FLIP, view=0, seed=1),
    ):
        same = (other == base).flatten(1).all(1).float().mean()
        assert same < 0.07  # 1/50 expected, standard deviation 0.7 %


def test_every_shift_is_equally_likely() -> None:
    count, pad = 20_000, 2
    row = torch.arange(9.0).reshape(1, 1, 1, 9).expand(count, 1, 9, 9)
    out = apply_view(row, np.arange(count), Augment(crop_px=pad), view=3, seed=5)
    shifts = out[:, 0, 0, 4] - 4
    for shift in range(-pad, pad + 1):
        share = (shifts == shift).float().mean().item()
        # standard deviation sqrt(0.2 * 0.8 / 20000) = 0.28 %; five of them
        assert share == pytest.approx(0.2, abs=0.014)


def test_the_border_is_mirrored() -> None:
    row = torch.arange(5.0).reshape(1, 1, 1, 5).expand(200, 1, 5, 5)
    out = apply_view(row, np.arange(200), Augment(crop_px=1), view=0, seed=0)
    looks = {tuple(o[0, 0].tolist()) for o in out}
    assert looks == {(1, 0, 1, 2, 3), (0, 1, 2, 3, 4), (1, 2, 3, 4, 3)}


def test_a_flip_mirrors_left_to_right_about_half_of_the_samples() -> None:
    images = _images(1).expand(1000, -1, -1, -1)
    out = apply_view(images, np.arange(1000), Augment(flip=True), view=0, seed=0)
    flipped = (out == images.flip(3)).flatten(1).all(1)
    plain = (out == images).flatten(1).all(1)
    assert (flipped ^ plain).all()
    assert 0.42 < flipped.float().mean() < 0.58  # five standard deviations of 1.6 %


def test_without_changes_the_batch_itself_comes_back() -> None:
    vectors = torch.randn(3, 4)
    assert apply_view(vectors, np.arange(3), Augment(), view=9, seed=1) is vectors


def test_known_values() -> None:
    # written down from the first version: stored teacher outputs rely on them
    image = torch.arange(16.0).reshape(1, 1, 4, 4).expand(6, 1, 4, 4)
    out = apply_view(image, np.arange(6), Augment(crop_px=1, flip=True), view=2, seed=7)
    assert out[:, 0, 1, 1].int().tolist() == [2, 1, 8, 5, 3, 2]


def test_vectors_cannot_be_cropped() -> None:
    with pytest.raises(RecipeError) as error:
        check_augment(Augment(flip=True), (64,))
    assert "augment changes images, and these inputs are none." in str(error.value)
    assert "got:      (64,)" in str(error.value)


def test_a_crop_larger_than_the_image_is_refused() -> None:
    with pytest.raises(RecipeError) as error:
        check_augment(Augment(crop_px=8), (1, 8, 12))
    assert "augment.crop_px is too large for the images." in str(error.value)
    assert "less than 8 pixels" in str(error.value)
    check_augment(Augment(crop_px=7), (1, 8, 12))
