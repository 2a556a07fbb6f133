from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from edgekd.distill.optimizer import build_optimizer, learning_rate_factor, set_rate
from edgekd.distill.settings import TrainSettings


@given(
    st.integers(1, 20),
    st.integers(1, 30),
    st.floats(0, 5),
    st.sampled_from(["cosine", "constant"]),
)
def test_the_rate_stays_positive_and_at_most_the_peak(
    epochs: int, steps: int, warmup: float, schedule: str
) -> None:
    settings = TrainSettings(epochs=epochs, warmup_epochs=min(warmup, epochs), schedule=schedule)
    factors = [learning_rate_factor(settings, s, steps) for s in range(epochs * steps)]
    assert all(0 < f <= 1 for f in factors)
    peak = math.ceil(settings.warmup_epochs * steps)
    rising, falling = factors[:peak], factors[peak:]
    assert rising == sorted(rising)
    assert falling == sorted(falling, reverse=True)


def test_known_rates() -> None:
    settings = TrainSettings(epochs=3, warmup_epochs=1)
    factors = [learning_rate_factor(settings, s, 4) for s in range(12)]
    # by hand: quarters up to the peak at step 3, then half a cosine over 9 steps
    cosine = [0.5 * (1 + math.cos(math.pi * k / 9)) for k in range(9)]
    assert factors == pytest.approx([0.25, 0.5, 0.75, *cosine])


def _net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3, 2))


def test_only_matrices_and_convolutions_are_decayed() -> None:
    net = _net()
    optimizer = build_optimizer(TrainSettings(weight_decay=0.01), net.parameters())
    decayed = {
        id(p) for g in optimizer.param_groups if g["weight_decay"] == 0.01 for p in g["params"]
    }
    free = {id(p) for g in optimizer.param_groups if g["weight_decay"] == 0.0 for p in g["params"]}
    names = {id(p): name for name, p in net.named_parameters()}
    assert {names[i] for i in decayed} == {"0.weight", "3.weight"}
    assert {names[i] for i in free} == {"0.bias", "1.weight", "1.bias", "3.bias"}


def test_a_parameter_may_have_its_own_rate() -> None:
    net = _net()
    scaled = net.get_parameter("0.bias")
    scaled.lr_scale = 0.1  # type: ignore[attr-defined]
    optimizer = build_optimizer(TrainSettings(), net.parameters())
    set_rate(optimizer, 0.5)
    rates = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
    assert rates.pop(id(scaled)) == pytest.approx(0.05)
    assert set(rates.values()) == {0.5}


def test_frozen_parameters_are_left_out() -> None:
    net = _net()
    net.get_parameter("0.weight").requires_grad_(False)
    optimizer = build_optimizer(TrainSettings(), net.parameters())
    assert sum(len(g["params"]) for g in optimizer.param_groups) == 5


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_gradient_of_another_memory_layout_updates_the_right_weights(name: str) -> None:
    def train(layout: torch.memory_format) -> torch.Tensor:
        torch.manual_seed(0)
        weight = nn.Parameter(torch.randn(4, 3, 2, 2))
        weight.data = weight.data.to(memory_format=torch.channels_last)
        optimizer = build_optimizer(TrainSettings(optimizer=name), [weight])
        for _ in range(3):
            weight.grad = torch.randn(4, 3, 2, 2).to(memory_format=layout)
            optimizer.step()
        return weight.detach()

    assert torch.equal(train(torch.channels_last), train(torch.contiguous_format))


def test_the_first_step_equals_that_of_plain_torch() -> None:
    settings = TrainSettings(weight_decay=0.0)
    mine, plain = (nn.Parameter(torch.ones(2, 2)) for _ in range(2))
    optimizers = [
        build_optimizer(settings, [mine]),
        torch.optim.SGD([plain], lr=0.1, momentum=0.9, nesterov=True),
    ]
    for _ in range(3):
        for parameter, optimizer in zip((mine, plain), optimizers, strict=True):
            parameter.grad = torch.full((2, 2), 0.5)
            optimizer.step()
    assert torch.equal(mine, plain)
