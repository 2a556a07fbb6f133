from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from edgekd.core.config import validate
from edgekd.core.types import Scheme
from edgekd.quantize.convert import QuantizationAware, simulate
from edgekd.quantize.settings import QuantizeSettings
from tests.quantize.nets import INPUT_SHAPE, Residual, trained_looking

SCHEME = Scheme(activations="uint8", bias="float32")
INPUTS = np.random.default_rng(0).normal(size=(300, *INPUT_SHAPE)).astype(np.float32)


def aware(
    net: nn.Module, inputs: NDArray[np.float32] = INPUTS, **fields: Any
) -> QuantizationAware:
    settings = validate(
        QuantizeSettings,
        {"weights": {"name": "minmax", "bits": 3}, "activation_bits": "float", **fields},
        source="the recipe",
    )
    return QuantizationAware(net, settings, SCHEME, inputs, learned=False, seed=0)


def channels(module: nn.Module, path: str) -> torch.Tensor:
    """(values, O): what a layer gives on the inputs."""
    found: list[torch.Tensor] = []
    handle = module.get_submodule(path).register_forward_hook(lambda *a: found.append(a[2]))
    with torch.no_grad():
        module(torch.from_numpy(INPUTS))
    handle.remove()
    return found[0].movedim(1, -1).flatten(0, -2)


@pytest.mark.parametrize("name", ["residual", "depthwise", "dense"])
def test_channels_have_their_float_statistics_again(name: str) -> None:
    plain = aware(trained_looking(name), restore_statistics=False)
    found = aware(trained_looking(name))
    *inner, last = found.placement.weights
    for path in (*inner, last):
        wanted, got = channels(found.graph, path), channels(found.module, path)
        torch.testing.assert_close(got.mean(0), wanted.mean(0), rtol=1e-3, atol=1e-3)
        if path != last:
            torch.testing.assert_close(got.std(0), wanted.std(0), rtol=1e-2, atol=1e-3)
    shifted = channels(plain.module, inner[-1]).mean(0) - channels(plain.graph, inner[-1]).mean(0)
    assert shifted.abs().max() > 0.01  # there was something to restore


def test_the_decision_keeps_its_spread() -> None:
    found = aware(trained_looking("residual"))
    *inner, last = found.placement.weights
    for path in (*inner, last):
        now, was = (m.get_submodule(path) for m in (found.module, found.graph))
        kept = torch.equal(now.layer.weight, was.weight)  # type: ignore[union-attr, arg-type]
        assert kept == (path == last), path


def test_a_spread_that_was_nearly_lost_is_not_blown_up_to_noise() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(256, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    with torch.no_grad():
        # a step is 1: of a row one weight is left, an eighth of its spread
        net[1].weight.fill_(0.49)  # type: ignore[union-attr, operator]
        net[1].weight[:, 0] = 0.51  # type: ignore[union-attr, operator, index]
        net[1].weight[3, 1] = 1.0  # type: ignore[union-attr, operator, index]
    found = aware(net, weights={"name": "minmax", "bits": 2}, granularity={"kind": "per_tensor"})
    weight: Any = found.module.get_submodule("1").layer.weight
    assert weight[0, :2].tolist() == pytest.approx([4 * 0.51, 4 * 0.49])


@pytest.mark.parametrize("restored", [True, False])
def test_means_follow_points_that_moved_under_fixed_weights(restored: bool) -> None:
    found = aware(
        trained_looking("dense"),
        weights={"name": "differentiable", "bits": 2},
        restore_statistics=restored,
    )
    before = {
        p: found.module.get_submodule(p).layer.weight.clone() for p in found.placement.weights
    }
    for path in found.placement.weights:
        fake: Any = found.module.get_submodule(path).weight_fake_quant
        with torch.no_grad():
            fake.shifts.add_(torch.tensor([0.0, 0.5, 1.0, 0.5]))
    ready = simulate(found.freeze())
    for path in found.placement.weights:
        off = (channels(ready, path).mean(0) - channels(found.graph, path).mean(0)).abs().max()
        assert (off < 1e-3) == restored
        layer: Any = found.module.get_submodule(path)
        assert torch.equal(layer.layer.weight, before[path])  # biases alone


def test_trained_biases_are_left_alone() -> None:
    found = aware(trained_looking("dense"))
    layer: Any = found.module.get_submodule("hidden")
    with torch.no_grad():
        layer.layer.bias.add_(1.0)
    before = layer.layer.bias.clone()
    found.freeze()
    assert torch.equal(layer.layer.bias, before)


def test_eight_bits_are_left_alone_unless_asked() -> None:
    whole = {"name": "minmax", "bits": 8}
    for found, changed in (
        (aware(trained_looking("dense"), weights=whole), False),
        (aware(trained_looking("dense"), weights=whole, restore_statistics=True), True),
        (aware(trained_looking("dense"), activation_bits=4, weights=whole), True),
    ):
        layer: Any = found.module.get_submodule("hidden")
        before: Any = found.graph.get_submodule("hidden")
        assert torch.equal(layer.layer.weight, before.weight) != changed


def test_a_channel_that_is_always_the_same_stays_finite() -> None:
    net: Any = trained_looking("dense")
    with torch.no_grad():
        net.hidden.weight[0] = 0
        net.norm.weight[1] = 0
    frozen = aware(net).freeze()
    assert all(torch.isfinite(v).all() for v in frozen.graph.state_dict().values())


def test_layers_without_a_bias_stay_as_they_are() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(256, 8, bias=False), nn.ReLU(), nn.Linear(8, 4))
    found = aware(net)
    first: Any = found.module.get_submodule("1")
    assert torch.equal(first.layer.weight, net[1].weight)


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    pixels = torch.from_numpy(images.reshape(-1, 1, 8, 8) / 8 - 1).float()
    return pixels.repeat_interleave(2, 2).repeat_interleave(2, 3), torch.from_numpy(labels)


def test_post_training_at_few_bits_gains_on_real_digits() -> None:
    inputs, labels = digits()
    torch.manual_seed(0)
    net = Residual()
    optimizer = torch.optim.Adam(net.parameters(), 5e-3)
    for step in range(120):
        picked = torch.randint(0, 1200, (64,), generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        F.cross_entropy(net(inputs[picked]), labels[picked]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    scores = {}
    for bits in (2, 3):
        for restore in (False, True):
            found = aware(
                net.eval(),
                inputs[:256].numpy(),
                weights={"name": "lsq", "bits": bits},
                restore_statistics=restore,
            )
            with torch.no_grad():
                logits = simulate(found.freeze())(inputs[1200:])
            scores[bits, restore] = (logits.argmax(1) == labels[1200:]).float().mean().item()
    assert scores[2, True] > scores[2, False] + 0.1
    assert scores[3, True] > scores[3, False]
