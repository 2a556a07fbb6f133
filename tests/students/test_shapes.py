from __future__ import annotations

import torch
from torch import nn

from edgekd.students._contract import NetSpec
from edgekd.students.mlp import MLP
from edgekd.students.mobilenet import MobileNet
from edgekd.students.resnet import ResNet


def test_a_stage_halves_the_resolution_and_a_stem_stride_too() -> None:
    net = ResNet(widths=(4, 8, 8), depths=(1, 2, 1), stem_width=6, stem_stride=2)
    built = net.build(NetSpec((1, 28, 28), 10)).eval()
    seen = {}
    for name in ("conv", "stages.0", "stages.1", "stages.2"):
        built.get_submodule(name).register_forward_hook(
            lambda _m, _i, out, name=name: seen.update({name: tuple(out.shape[1:])})
        )
    built(torch.zeros(1, 1, 28, 28))
    assert seen == {
        "conv": (6, 14, 14),
        "stages.0": (4, 14, 14),
        "stages.1": (8, 7, 7),
        "stages.2": (8, 4, 4),
    }


def test_a_shortcut_is_a_projection_only_where_the_shape_changes() -> None:
    net = ResNet(widths=(4, 8), depths=(2, 2)).build(NetSpec((1, 8, 8), 2))
    kinds = {
        name: isinstance(layer, nn.Identity)
        for name, layer in net.named_modules()
        if name.endswith("shortcut")
    }
    assert kinds == {
        "stages.0.0.shortcut": True,
        "stages.0.1.shortcut": True,
        "stages.1.0.shortcut": False,
        "stages.1.1.shortcut": True,
    }


def test_no_layer_works_in_place() -> None:
    # an activation that is tapped or quantized must not change behind its back
    for family in (ResNet(), MobileNet(activation="relu6"), MobileNet()):
        net = family.build(NetSpec((1, 16, 16), 2))
        assert not any(getattr(layer, "inplace", False) for layer in net.modules())


def test_a_perceptron_takes_vectors_and_flattens_images() -> None:
    assert MLP().build(NetSpec((7,), 3)).eval()(torch.zeros(2, 7)).shape == (2, 3)
    assert MLP().build(NetSpec((1, 4, 4), 3)).eval()(torch.zeros(2, 1, 4, 4)).shape == (2, 3)


def test_a_perceptron_without_hidden_layers_is_linear() -> None:
    net = MLP(widths=()).build(NetSpec((5,), 3))
    assert [type(layer) for layer in net.modules() if not list(layer.children())] == [
        nn.Flatten,
        nn.Sequential,
        nn.Linear,
    ]


def test_dropout_acts_in_training_only() -> None:
    net = MLP(widths=(64,), batch_norm=False, dropout=0.5).build(NetSpec((5,), 3))
    x = torch.ones(1, 5)
    assert not torch.equal(net.train()(x), net(x))
    assert torch.equal(net.eval()(x), net(x))
