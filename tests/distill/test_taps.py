from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from edgekd.core.errors import RecipeError
from edgekd.distill.taps import Taps


class _Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.relu = nn.ReLU(inplace=True)
        self.second = nn.Linear(4, 2)
        self.idle = nn.Linear(2, 2)
        self.split = _Pair()

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.first(x))
        return self.relu(self.second(x))


class _Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


def test_a_tap_is_the_output_of_its_layer_even_before_an_inplace_relu() -> None:
    net, x = _Net(), torch.randn(5, 3)
    with Taps(net, ["first"], owner="student") as taps:
        net(x)
        seen = taps.collect()["first"]
    assert torch.equal(seen, net.first(x))
    assert seen.min() < 0  # a ReLU in place would have left none


def test_gradients_flow_through_a_tap() -> None:
    net = _Net()
    with Taps(net, ["first"], owner="student") as taps:
        net(torch.randn(5, 3))
        taps.collect()["first"].sum().backward()
    assert net.first.weight.grad is not None
    assert net.second.weight.grad is None


def test_the_hooks_are_gone_afterwards_also_after_an_error() -> None:
    net = _Net()
    with pytest.raises(ZeroDivisionError), Taps(net, ["first"], owner="student"):
        raise ZeroDivisionError
    assert not net.first._forward_hooks


def test_each_pass_is_collected_for_itself() -> None:
    net = _Net()
    with Taps(net, ["first"], owner="student") as taps:
        net(torch.zeros(1, 3))
        assert taps.collect()["first"].shape == (1, 4)
        net(torch.zeros(2, 3))
        assert taps.collect()["first"].shape == (2, 4)


def test_an_unknown_layer_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(RecipeError) as error:
        Taps(_Net(), ["frist"], owner="teacher")
    assert "The teacher has no layer 'frist'. Did you mean 'first'? Known: " in str(error.value)


def test_a_layer_that_does_not_run_is_refused() -> None:
    net = _Net()
    with Taps(net, ["idle"], owner="student") as taps:
        net(torch.zeros(1, 3))
        with pytest.raises(RecipeError) as error:
            taps.collect()
    assert "The layer 'idle' of the student does not run in a pass." in str(error.value)
    assert "a traced network calls only innermost layers" in str(error.value)


def test_a_layer_that_runs_twice_is_refused() -> None:
    net = _Net()
    with Taps(net, ["relu"], owner="student") as taps:
        net(torch.zeros(1, 3))
        with pytest.raises(RecipeError, match="'relu' of the student runs more than once"):
            taps.collect()


def test_a_layer_that_gives_two_tensors_is_refused() -> None:
    net = _Net()
    with (
        Taps(net, ["split"], owner="student"),
        pytest.raises(RecipeError, match="'split' of the student does not give one tensor"),
    ):
        net.split(torch.zeros(1, 3))
