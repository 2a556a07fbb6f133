from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from edgekd.core.errors import UnsupportedError
from edgekd.students._contract import NetSpec
from edgekd.students._cost import count_macs, count_parameters, measure_cost
from edgekd.students.mlp import MLP
from edgekd.students.mobilenet import MobileNet
from edgekd.students.resnet import ResNet


def _torch_macs(module: nn.Module, shape: tuple[int, ...]) -> float:
    """Torch's own counter; it counts a multiply-accumulate as two operations."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module.eval()(torch.zeros(1, *shape))
    return counter.get_total_flops() / 2


@settings(max_examples=15)
@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 2)), min_size=1, max_size=3),
    st.integers(1, 3),
    st.integers(1, 2),
    st.integers(8, 15),
)
def test_a_residual_net_costs_what_torch_counts(
    stages: list[tuple[int, int]], channels: int, stem_stride: int, size: int
) -> None:
    widths, depths = zip(*stages, strict=True)
    net = ResNet(widths=widths, depths=depths, stem_stride=stem_stride).build(
        NetSpec((channels, size, size), 4)
    )
    assert count_macs(net, (channels, size, size)) == _torch_macs(net, (channels, size, size))


def test_separable_nets_and_perceptrons_cost_what_torch_counts() -> None:
    separable = MobileNet().build(NetSpec((3, 17, 12), 5))
    assert count_macs(separable, (3, 17, 12)) == _torch_macs(separable, (3, 17, 12))
    perceptron = MLP().build(NetSpec((9,), 5))
    assert count_macs(perceptron, (9,)) == _torch_macs(perceptron, (9,))


def test_resnet_20_has_its_published_size() -> None:
    # He et al. 2016, table 6: 0.27 M parameters; their option A has no shortcut weights
    net = ResNet(widths=(16, 32, 64), depths=(3, 3, 3)).build(NetSpec((3, 32, 32), 10))
    shortcuts = 16 * 32 + 32 * 64 + 2 * (32 + 64)
    assert count_parameters(net) == 269_722 + shortcuts


def test_counting_changes_neither_modes_nor_statistics() -> None:
    net = ResNet(widths=(4,), depths=(1,)).build(NetSpec((1, 8, 8), 2)).train()
    net.get_submodule("norm").eval()
    before = {name: t.clone() for name, t in net.state_dict().items()}
    modes = [layer.training for layer in net.modules()]
    measure_cost(net, (1, 8, 8))
    assert [layer.training for layer in net.modules()] == modes
    assert all(torch.equal(t, before[name]) for name, t in net.state_dict().items())
    assert all(not layer._forward_hooks for layer in net.modules())


class _Odd(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.mix = nn.Bilinear(4, 4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(x, self.linear(x))


def test_a_layer_without_a_rule_is_named() -> None:
    assert measure_cost(_Odd(), (4,)).macs == 16
    with pytest.raises(UnsupportedError) as error:
        count_macs(_Odd(), (4,))
    assert "The multiply-accumulates of _Odd cannot be counted." in str(error.value)
    assert error.value.got == "mix (Bilinear)"


def test_shared_weights_are_counted_once_as_parameters_and_twice_as_products() -> None:
    layer = nn.Linear(3, 3, bias=False)
    net = nn.Sequential(layer, layer)
    cost = measure_cost(net, (3,))
    assert (cost.parameters, cost.macs) == (9, 18)
