"""Channel statistics put back after rounding, as batch norms re-estimated behind it would do.

Batch norms are folded before anything is quantized, and rounding the folded weights to few bits
shifts and shrinks what they had normalised. So each layer, in execution order and behind the
layers already restored, gets its channels' standard deviation back by its weights and their mean
by its bias: empirical bias correction (Nagel et al. 2019, arXiv 1906.04721, appendix D) with the
scale as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor, fx, nn

_BATCH = 128
#: a channel whose spread was lost altogether is not blown up to noise
_LARGEST_GAIN = 4.0


def restore_statistics(
    graph: fx.GraphModule,
    module: fx.GraphModule,
    paths: Sequence[str],
    inputs: NDArray[np.float32],
    requantize: Callable[[str], None],
) -> None:
    """Change weights and biases of `module` so that its channels have the statistics of `graph`.

    The last layer keeps its scale: its outputs are the decision, and more spread would be noise.
    Layers without a bias stay as they are.

    Args:
        graph: In float, batch norm folded.
        module: The same with `QuantizedLayer`s at `paths`.
        paths: Quantized layers in execution order.
        inputs: Real train inputs, (N, …).
        requantize: Called with a path when the layer's weights have changed.
    """
    module.eval()
    wanted = _moments(graph, paths, inputs)
    for path in paths:
        layer: Any = module.get_submodule(path).layer
        if layer.bias is None:
            continue
        if path != paths[-1]:
            _, spread = _moments(module, [path], inputs)[path]
            gain = (wanted[path][1] / spread).nan_to_num(1.0, posinf=1.0)
            gain = gain.clamp(1 / _LARGEST_GAIN, _LARGEST_GAIN).to(layer.weight.dtype)
            with torch.no_grad():
                layer.weight.mul_(gain.view(-1, *[1] * (layer.weight.ndim - 1)))
            requantize(path)
        _restore_mean(module, path, layer, wanted[path][0], inputs)


def restore_means(
    graph: fx.GraphModule,
    module: fx.GraphModule,
    paths: Sequence[str],
    inputs: NDArray[np.float32],
) -> None:
    """Change biases of `module` so that its channels have the means of `graph`; nothing else.

    For layers whose weights and biases training left alone while it moved what they are rounded
    to: the biases that made up for the first rounding do not make up for the last one.

    Args:
        graph: In float, batch norm folded.
        module: The same with `QuantizedLayer`s at `paths`; in eval mode afterwards.
        paths: In execution order.
        inputs: Real train inputs, (N, …).
    """
    module.eval()
    wanted = _moments(graph, paths, inputs)
    for path in paths:
        layer: Any = module.get_submodule(path).layer
        if layer.bias is not None:
            _restore_mean(module, path, layer, wanted[path][0], inputs)


def _restore_mean(
    module: nn.Module, path: str, layer: Any, wanted: Tensor, inputs: NDArray[np.float32]
) -> None:
    mean, _ = _moments(module, [path], inputs)[path]
    with torch.no_grad():
        layer.bias.add_(wanted - mean)


def _moments(
    module: nn.Module, paths: Sequence[str], inputs: NDArray[np.float32]
) -> dict[str, tuple[Tensor, Tensor]]:
    """Mean and standard deviation of each channel of the layers' outputs, (O,) in float64."""
    sums: dict[str, list[Tensor]] = {path: [] for path in paths}

    def keep(path: str) -> Any:
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            channels = output.movedim(-1 if output.ndim == 2 else 1, -1).flatten(0, -2).double()
            count = torch.full((channels.shape[1],), float(len(channels)), dtype=torch.float64)
            sums[path].append(torch.stack([count, channels.sum(0), channels.square().sum(0)]))

        return hook

    handles = [module.get_submodule(path).register_forward_hook(keep(path)) for path in paths]
    try:
        with torch.no_grad():
            for start in range(0, len(inputs), _BATCH):
                module(torch.from_numpy(inputs[start : start + _BATCH]))
    finally:
        for handle in handles:
            handle.remove()
    found = {}
    for path, parts in sums.items():
        count, total, squares = torch.stack(parts).sum(0)
        mean = total / count
        found[path] = mean, (squares / count - mean.square()).clamp_min(0).sqrt()
    return found
