"""Size of a network: parameters and multiply-accumulates of one sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from edgekd.core.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Sequence

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
#: weights without multiply-accumulates by convention: an affine map per element, or a lookup
_FREE = (
    nn.modules.batchnorm._BatchNorm,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.Embedding,
    nn.PReLU,
)


@dataclass(frozen=True, slots=True)
class Cost:
    """What a network costs.

    Attributes:
        parameters: Trained numbers, each counted once.
        macs: Multiply-accumulates of convolutions and linear layers for one sample.
        uncounted: Path and type of each layer that has weights but no rule here, or whose
            weights were not used through its own forward.
    """

    parameters: int
    macs: int
    uncounted: tuple[str, ...]


def count_parameters(module: nn.Module) -> int:
    """Trained numbers, shared ones counted once."""
    return sum(p.numel() for p in module.parameters())


def measure_cost(module: nn.Module, input_shape: Sequence[int]) -> Cost:
    """Run one sample of zeros in eval mode and count.

    Args:
        module: Left as it was, its mode included.
        input_shape: Of one sample.
    """
    counted: dict[str, int] = {}
    handles = []

    def watch(path: str) -> Any:
        def hook(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            counted[path] = counted.get(path, 0) + _macs(layer, output)

        return hook

    layers = dict(module.named_modules())
    for path, layer in layers.items():
        if isinstance(layer, (*_CONVOLUTIONS, nn.Linear)):
            handles.append(layer.register_forward_hook(watch(path)))
    modes = {path: layer.training for path, layer in layers.items()}
    module.eval()
    try:
        with torch.no_grad():
            module(torch.zeros(1, *input_shape))
    finally:
        for handle in handles:
            handle.remove()
        for path, layer in layers.items():
            layer.training = modes[path]
    uncounted = tuple(
        f"{path or '(top)'} ({type(layer).__name__})"
        for path, layer in layers.items()
        if path not in counted
        and not isinstance(layer, _FREE)
        and any(p.ndim > 0 for p in layer.parameters(recurse=False))
    )
    return Cost(count_parameters(module), sum(counted.values()), uncounted)


def count_macs(module: nn.Module, input_shape: Sequence[int]) -> int:
    """Multiply-accumulates of one sample.

    Raises:
        UnsupportedError: Some layer with weights cannot be counted; the text names it.
    """
    cost = measure_cost(module, input_shape)
    if cost.uncounted:
        raise UnsupportedError(
            f"The multiply-accumulates of {type(module).__name__} cannot be counted.",
            expected="weights only in convolutions, linear layers and norms",
            got=", ".join(cost.uncounted),
        )
    return cost.macs


def _macs(layer: nn.Module, output: Tensor) -> int:
    """Each output value of the one sample takes one weight filter's worth of products."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return output.numel() * (weight.numel() // weight.shape[0])
