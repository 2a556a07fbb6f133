from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from edgekd.core.errors import RecipeError
from edgekd.distill.precision import (
    BFLOAT16_MIN_MACS,
    choose_precision,
    cpu_flags,
    memory_format,
    wants_channels_last,
)
from edgekd.distill.settings import TrainSettings
from edgekd.students._contract import NetSpec
from edgekd.students._cost import count_macs
from edgekd.students.mlp import MLP
from edgekd.students.resnet import ResNet

_SHAPE = (1, 28, 28)
_LARGE = ResNet(widths=(16, 32, 64), depths=(1, 1, 1)).build(NetSpec(_SHAPE, 10))
_SMALL = ResNet(widths=(4, 8), depths=(1, 1), stem_stride=2).build(NetSpec(_SHAPE, 10))
_NATIVE = frozenset({"avx2", "avx512_bf16"})


def test_the_two_examples_lie_on_either_side_of_the_limit() -> None:
    assert count_macs(_SMALL, _SHAPE) < BFLOAT16_MIN_MACS <= count_macs(_LARGE, _SHAPE)


@pytest.mark.parametrize(
    ("net", "flags", "expected"),
    [
        (_LARGE, _NATIVE, "bfloat16"),
        (_LARGE, frozenset({"amx_bf16"}), "bfloat16"),
        (_LARGE, frozenset({"avx2", "avx512f"}), "float32"),
        (_LARGE, frozenset(), "float32"),
        (_SMALL, _NATIVE, "float32"),
    ],
)
def test_auto_follows_the_flags_and_the_size(
    net: nn.Module, flags: frozenset[str], expected: str
) -> None:
    assert choose_precision(TrainSettings(), net, _SHAPE, flags) == expected


def test_auto_takes_float32_where_the_cost_is_unknown() -> None:
    # as in a quantization-aware layer, whose weight is rounded outside its own forward
    net = nn.Sequential(_LARGE, nn.Bilinear(10, 10, 2))
    net.forward = net[0].forward  # type: ignore[method-assign]
    assert choose_precision(TrainSettings(), net, _SHAPE, _NATIVE) == "float32"


@pytest.mark.parametrize("given", ["float32", "bfloat16"])
def test_what_the_user_writes_counts(given: str) -> None:
    for net, flags in ((_LARGE, frozenset[str]()), (_SMALL, _NATIVE)):
        settings = TrainSettings.model_validate({"precision": given})
        assert choose_precision(settings, net, _SHAPE, flags) == given


def test_flags_are_read_from_the_system(tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text("processor : 0\nflags\t\t: fpu avx512_bf16 sse\nbugs :\n")
    assert cpu_flags(file) == {"fpu", "avx512_bf16", "sse"}
    assert cpu_flags(tmp_path / "none") == frozenset()


def test_channels_last_is_for_convolutions() -> None:
    perceptron = MLP().build(NetSpec((4,), 2))
    assert wants_channels_last(TrainSettings(), _LARGE)
    assert not wants_channels_last(TrainSettings(), perceptron)
    assert not wants_channels_last(TrainSettings(channels_last=False), _LARGE)


@pytest.mark.parametrize(("channels", "safe"), [(4, False), (12, False), (8, True), (32, True)])
def test_a_strided_projection_of_odd_width_is_never_trained_pixel_by_pixel(
    channels: int, safe: bool
) -> None:
    """oneDNN's AVX2 kernel overruns its memory there, and glibc aborts the process."""
    net = nn.Sequential(nn.Conv2d(3, channels, 3), nn.Conv2d(channels, 8, 1, stride=2))
    assert wants_channels_last(TrainSettings(), net) == safe
    if safe:
        assert wants_channels_last(TrainSettings(channels_last=True), net)
    else:
        with pytest.raises(RecipeError, match="The layer '1' cannot be trained"):
            wants_channels_last(TrainSettings(channels_last=True), net)


def test_such_a_projection_trains_as_chosen() -> None:
    net = nn.Conv2d(4, 8, 1, stride=2)
    layout = memory_format(wants_channels_last(TrainSettings(), net))
    net.to(memory_format=layout)
    for _ in range(50):
        images = torch.randn(16, 4, 6, 6).contiguous(memory_format=layout)
        net(images).square().sum().backward()
    assert net.weight.grad is not None
    assert torch.isfinite(net.weight.grad).all()
