"""Weights and ranges that real trainings leave behind now and then."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgekd.core.config import validate
from edgekd.core.errors import DataError, RecipeError
from edgekd.core.types import PerBlock
from edgekd.numerics.encoding import round_trip
from edgekd.quantize.convert import simulate
from edgekd.quantize.quantizers._contract import QUANTIZERS
from edgekd.quantize.settings import QuantizeSettings
from tests.quantize.nets import trained_looking
from tests.quantize.test_convert import aware, samples

NAMES = QUANTIZERS.names()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_training_broke_is_named(value: float) -> None:
    work = aware(trained_looking("dense"))
    with torch.no_grad():
        work.module.head.layer.weight[0, 0] = value  # type: ignore[union-attr, index, operator]
    with pytest.raises(DataError, match="The weight of the layer 'head' is not finite"):
        work.freeze()


def test_a_layer_without_weights_is_named() -> None:
    work = aware(trained_looking("dense"))
    layer: Any = work.module.head
    layer.layer.weight = nn.Parameter(torch.zeros(10, 0))
    with pytest.raises(DataError, match="The layer 'head' has no weights"):
        work.freeze()


def test_an_axis_that_a_layer_lacks_is_named() -> None:
    granularity = {"kind": "per_channel", "axis": 2}
    with pytest.raises(RecipeError, match="The weight of the layer 'hidden' has no axis 2"):
        aware(trained_looking("dense"), granularity=granularity)


@pytest.mark.parametrize("name", NAMES)
def test_a_dead_channel_and_a_dead_input_still_freeze(name: str) -> None:
    net = trained_looking("dense")
    with torch.no_grad():
        net.hidden.weight[3] = 0  # type: ignore[union-attr, index, operator]
        net.head.weight.fill_(0.25)  # type: ignore[union-attr, operator]
    student = aware(net, weights={"name": name}).freeze()
    simulated = simulate(student)
    with torch.no_grad():
        out = simulated(torch.from_numpy(samples(4)))
    assert torch.isfinite(out).all()
    weight: Any = simulated.get_submodule("hidden").weight
    assert weight[3].abs().max() < 1e-6
    constant: Any = simulated.get_submodule("head").weight
    # every quantizer has a point for the one value, up to its search's last percent
    assert torch.allclose(constant, torch.tensor(0.25), rtol=0.01)


@pytest.mark.parametrize("name", NAMES)
def test_a_block_larger_than_the_layer_is_the_whole_layer(name: str) -> None:
    weight = np.random.default_rng(0).normal(size=(4, 9)).astype(np.float32)
    quantizer = QUANTIZERS.build(name)
    huge, exact = PerBlock(size=1 << 40), PerBlock(size=36)
    found = [round_trip(weight, quantizer.encode(weight, g)) for g in (huge, exact)]
    assert np.array_equal(*found)
    tensor = torch.from_numpy(weight)
    trained = [quantizer.fake_quant(tensor, g)(tensor).detach() for g in (huge, exact)]
    assert torch.equal(*trained)


def test_an_activation_that_is_always_zero_has_a_grid() -> None:
    net = trained_looking("dense")
    with torch.no_grad():
        net.norm.weight.zero_()  # type: ignore[union-attr, operator]
        net.norm.bias.fill_(-1.0)  # type: ignore[union-attr, operator]
    student = aware(net, learned=True, activation_bits=4).freeze()
    scales = [float(a.scale) for a in student.activations.values()]
    assert all(0 < s < np.inf for s in scales)
    assert torch.isfinite(simulate(student)(torch.from_numpy(samples(4)))).all()


def test_learned_zero_points_need_learned_ranges() -> None:
    recipe = {"learned_ranges": False, "learned_zero_points": True}
    with pytest.raises(RecipeError, match="learned_zero_points: needs learned_ranges: true"):
        validate(QuantizeSettings, recipe, source="recipe")
