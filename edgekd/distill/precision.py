"""Number format and memory layout of a network: rules that never look at a clock."""

from __future__ import annotations

import platform
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

from edgekd.core.errors import RecipeError
from edgekd.students._cost import measure_cost

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from edgekd.distill.settings import TrainSettings

Precision = Literal["float32", "bfloat16"]

#: CPU flags (Linux names) of a native bfloat16 product; without one it is emulated, and slow
NATIVE_BFLOAT16 = frozenset({"avx512_bf16", "amx_bf16"})
#: multiply-accumulates of one sample below which the casts eat what the products gain; measured
#: on an AVX-512 BF16 machine: 0.6 M equal, 2.4 M 1.2 times, 9 M 2 times, 37 M 2 times faster
BFLOAT16_MIN_MACS = 2_000_000


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Feature flags of the CPU; empty where the system does not tell."""
    if platform.system() != "Linux" or not cpuinfo.exists():
        return frozenset()
    for line in cpuinfo.read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "flags":
            return frozenset(value.split())
    return frozenset()


def choose_precision(
    settings: TrainSettings,
    module: nn.Module,
    input_shape: Sequence[int],
    flags: frozenset[str] | None = None,
) -> Precision:
    """What `settings.precision` means for this network on this machine.

    "auto" takes float32 for a network with layers whose cost is not known. Quantization-aware
    layers are among those, and rightly so: bfloat16 carries 8 significant bits, too few to train
    through the rounding to 8 bits.
    """
    if settings.precision != "auto":
        return settings.precision
    if not NATIVE_BFLOAT16 & (cpu_flags() if flags is None else flags):
        return "float32"
    cost = measure_cost(module, input_shape)
    known = not cost.uncounted
    return "bfloat16" if known and cost.macs >= BFLOAT16_MIN_MACS else "float32"


def wants_channels_last(settings: TrainSettings, module: nn.Module) -> bool:
    """Whether images are kept channel by channel or pixel by pixel in memory.

    Raises:
        RecipeError: The recipe insists on pixel by pixel, and a layer cannot be trained so.
    """
    unsafe = [name for name, layer in module.named_modules() if _overruns(layer)]
    if settings.channels_last == "auto":
        return not unsafe and any(isinstance(layer, nn.Conv2d) for layer in module.modules())
    if settings.channels_last and unsafe:
        raise RecipeError(
            f"The layer {unsafe[0]!r} cannot be trained with channels_last: true.",
            expected="no 1x1 convolution with a stride whose input channels are no multiple of 8",
            todo="leave channels_last at auto",
        )
    return settings.channels_last


def _overruns(layer: nn.Module) -> bool:
    """Whether oneDNN writes beyond its memory in the layer's backward pass, pixel by pixel.

    Seen with torch 2.13 on AVX2 CPUs (jit_1x1:avx2, backward_weights): 4 input channels abort the
    process; wider ones that leave a part of a vector are not trusted either.
    """
    if not isinstance(layer, nn.Conv2d) or set(layer.kernel_size) != {1}:
        return False
    return max(layer.stride) > 1 and layer.in_channels // layer.groups % 8 != 0


def memory_format(channels_last: bool) -> torch.memory_format:
    """As torch calls it."""
    return torch.channels_last if channels_last else torch.contiguous_format


@contextmanager
def fast_layout(module: nn.Module | None) -> Iterator[None]:
    """Keep a network with 2-d convolutions pixel by pixel in memory for a while.

    The layout of the weights decides: an image of one channel looks the same in both.
    """
    if module is None or not any(isinstance(layer, nn.Conv2d) for layer in module.modules()):
        yield
        return
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    try:
        yield
    finally:
        module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
