"""Students with live batch norm on low-bit grids, for the tables of bench/paper_students.py.

Every convolution and linear layer computes with its weight on the grid of an edgekd quantizer, if
asked with its input on a learned grid too. Batch norm stays where it is and goes on estimating: at
two bits a student that was folded first cannot recover. A scale per channel takes up the gain of
the batch norm behind it when the file is written; scales per block leave the gain to be stored.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgekd.core.types import PerBlock, PerChannel, PerTensor
from edgekd.distill.feed import ResidentSplit
from edgekd.numerics.encoding import stored_bytes
from edgekd.quantize.convert import QuantizedLayer
from edgekd.quantize.fake_quant import ActivationFakeQuant
from edgekd.quantize.observers import Observer
from edgekd.quantize.placement import WEIGHTED
from edgekd.tasks._contract import Split

Granularity = PerTensor | PerChannel | PerBlock
#: layer path -> quantizer and granularity of its weight, or None for float
Choice = Callable[[str], tuple[Any, Granularity] | None]
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
_BATCH = 128


class LowBit:
    """A copy of a float network on grids.

    Attributes:
        module: What to train.
    """

    def __init__(
        self,
        net: nn.Module,
        choice: Choice,
        *,
        calibration: Split,
        activation_bits: Callable[[str], int] | None = None,
        fixed_weights: bool = False,
    ) -> None:
        self.module = copy.deepcopy(net).eval()
        paths = [n for n, layer in self.module.named_modules() if isinstance(layer, WEIGHTED)]
        inputs = _observed(self.module, paths, calibration) if activation_bits else {}
        if fixed_weights:
            self.module.requires_grad_(False)
        self.layers: dict[str, QuantizedLayer] = {}
        for path in paths:
            layer: Any = self.module.get_submodule(path)
            chosen = choice(path)
            if chosen is None:
                continue
            quantizer, granularity = chosen
            quantized = QuantizedLayer(layer, quantizer.fake_quant(layer.weight, granularity))
            parent, _, name = path.rpartition(".")
            new: nn.Module = quantized
            if activation_bits:
                signed = inputs[path].low < 0
                grid = inputs[path].affine("mse", bits=activation_bits(path), signed=signed)
                new = nn.Sequential(ActivationFakeQuant(grid, learned=True), quantized)
            setattr(self.module.get_submodule(parent), name, new)
            self.layers[path] = quantized

    def stored_bytes(self) -> int:
        """Of all codes, scales, offsets and points, and of the floats that stay beside them."""
        total = 0
        for quantized in self.layers.values():
            layer: Any = quantized.layer
            encoding = quantized.weight_fake_quant.encoding(layer.weight)
            total += stored_bytes(layer.weight.numel(), encoding)
            total += 4 * layer.bias.numel() if layer.bias is not None else 0
            if isinstance(encoding.granularity, PerBlock) and layer.bias is None:
                total += 4 * layer.weight.shape[0]  # the gain of the batch norm behind
        for layer in self.module.modules():
            if isinstance(layer, _NORMS):
                total += 4 * layer.num_features  # its shift
        held = {id(quantized.layer) for quantized in self.layers.values()}
        for layer in self.module.modules():
            if isinstance(layer, WEIGHTED) and id(layer) not in held:
                total += sum(4 * tensor.numel() for tensor in layer.parameters())
        return total

    def bits(self) -> dict[str, int]:
        """Bits per weight of every layer."""
        return {
            path: layer.weight_fake_quant.encoding(layer.layer.weight).bits  # type: ignore[union-attr]
            for path, layer in self.layers.items()
        }


def estimate_batch_norms(module: nn.Module, split: Split, *, batches: int, seed: int) -> None:
    """Replace running statistics by plain means over train batches, weights as they are now."""
    norms = [layer for layer in module.modules() if isinstance(layer, _NORMS)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean
    order = np.random.default_rng(seed).permutation(len(split))
    module.train()
    with torch.no_grad():
        for i in range(min(batches, len(split) // _BATCH)):
            module(torch.from_numpy(split.batch(order[i * _BATCH : (i + 1) * _BATCH])))
    module.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def some(split: Split, count: int) -> ResidentSplit:
    """Samples drawn with a fixed seed; the split itself may be sorted by class."""
    picked = np.sort(np.random.default_rng(0).permutation(len(split))[:count])
    return ResidentSplit(split.batch(picked), split.labels[picked])


def _observed(module: nn.Module, paths: list[str], split: Split) -> dict[str, Observer]:
    """What every layer reads on calibration samples."""
    observers = {path: Observer(path, seed=0) for path in paths}
    count = len(split)
    batches = -(-count // _BATCH)
    with _watching(module, observers, batches), torch.no_grad():
        for start in range(0, count, _BATCH):
            module(torch.from_numpy(split.batch(np.arange(start, min(start + _BATCH, count)))))
    return observers


@contextmanager
def _watching(module: nn.Module, observers: dict[str, Observer], batches: int) -> Iterator[None]:
    def watch(observer: Observer) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda _, inputs: observer.observe(inputs[0].numpy(), share=1 / batches)

    handles = [
        module.get_submodule(path).register_forward_pre_hook(watch(observer))
        for path, observer in observers.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
