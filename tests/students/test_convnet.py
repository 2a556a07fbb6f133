from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from edgekd.core.errors import RecipeError
from edgekd.students._contract import NetSpec
from edgekd.students._cost import count_macs, count_parameters
from edgekd.students.convnet import ConvNet

_CIFAR = NetSpec((3, 32, 32), 10)
#: the students of arXiv:1802.05668 with their counts of parameters, biases included
_PAPER = {
    1_000_235: ConvNet(stages=((75, 50), (50, 25)), kernel=5, hidden=(500,)),
    318_415: ConvNet(stages=((50, 25), (25, 10)), kernel=5, hidden=(400,)),
    111_935: ConvNet(stages=((25, 10), (10, 5)), kernel=5, hidden=(300,)),
}


@pytest.mark.parametrize("published", _PAPER)
def test_it_builds_the_students_of_the_paper_but_for_idle_biases(published: int) -> None:
    family = _PAPER[published]
    normed = sum(map(sum, family.stages)) + sum(family.hidden)
    assert count_parameters(family.build(_CIFAR)) == published - normed


def test_it_costs_what_its_layers_cost() -> None:
    convolutions = 25 * (3 * 25 + 25 * 10) * 32 * 32 + 25 * (10 * 10 + 10 * 5) * 16 * 16
    linear = 5 * 8 * 8 * 300 + 300 * 10
    assert count_macs(_PAPER[111_935].build(_CIFAR), (3, 32, 32)) == convolutions + linear


def test_every_batch_norm_stands_right_behind_what_it_folds_into() -> None:
    net = ConvNet(dropout=0.1).build(_CIFAR)
    layers = [layer for layer in net.modules() if not list(layer.children())]
    before = [type(layers[i - 1]) for i, x in enumerate(layers) if "BatchNorm" in type(x).__name__]
    assert before == [*[nn.Conv2d] * 4, nn.Linear]


def test_dropout_acts_behind_poolings_and_hidden_layers_in_training_only() -> None:
    net = ConvNet(stages=((8,), (8,)), hidden=(16, 16), dropout=0.5).build(_CIFAR)
    assert sum(isinstance(layer, nn.Dropout) for layer in net.modules()) == 4
    x = torch.ones(2, 3, 32, 32)
    net.eval()
    assert torch.equal(net(x), net(x))


def test_it_works_without_hidden_layers() -> None:
    net = ConvNet(stages=((4,),), hidden=()).build(NetSpec((1, 6, 6), 3))
    assert net.eval()(torch.zeros(2, 1, 6, 6)).shape == (2, 3)


def test_an_even_kernel_is_refused() -> None:
    with pytest.raises(ValidationError, match="only an odd side has a middle"):
        ConvNet(kernel=4)


def test_an_image_too_small_for_the_poolings_is_refused() -> None:
    with pytest.raises(RecipeError, match="reduces the image"):
        ConvNet(stages=((4,), (4,), (4,))).build(NetSpec((1, 7, 9), 3))
