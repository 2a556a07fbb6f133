"""Contract of a weight quantizer: chooses an encoding, and trains towards it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from edgekd.core.registry import Registry

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from edgekd.core.types import Encoding, PerBlock, PerChannel, PerTensor

    Granularity = PerTensor | PerChannel | PerBlock


class Quantizer(Protocol):
    """A way of choosing codes for a weight; its pydantic fields are its settings."""

    @property
    def bits(self) -> int:
        """Bits per weight."""

    def encode(self, weight: NDArray[np.float32], granularity: Granularity) -> Encoding:
        """The encoding for a weight of shape (O, I, …)."""

    def fake_quant(self, weight: Tensor, granularity: Granularity) -> WeightFakeQuant:
        """A `torch.nn.Module` that quantizes and dequantizes a training weight, with gradients."""


class WeightFakeQuant(Protocol):
    """What `Quantizer.fake_quant` gives: a module that trains with the layer.

    An attribute `trains_layer`, if there is one and it is False, says that weight and bias of the
    layer stay as they are and only the module's own parameters train.
    """

    def __call__(self, weight: Tensor) -> Tensor:
        """Quantized and dequantized, same shape; gradients reach the weight."""

    def encoding(self, weight: Tensor) -> Encoding:
        """The encoding in force, from which the file is written."""


QUANTIZERS: Registry[Quantizer] = Registry("quantizer", "edgekd.quantize.quantizers")

if TYPE_CHECKING:
    QuantizerField = Quantizer  # what a recipe's field holds once it is read
else:
    QuantizerField = QUANTIZERS.field()
