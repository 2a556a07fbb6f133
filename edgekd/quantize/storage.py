"""What a quantized student's weights take: at their real width, and entropy coded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekd.core.types import Affine
from edgekd.numerics.encoding import encode, stored_bytes
from edgekd.numerics.entropy import huffman_bytes

if TYPE_CHECKING:
    from edgekd.core.types import QuantizedStudent


@dataclass(frozen=True, slots=True)
class WeightStorage:
    """All quantized weights of a student; biases and layers in float are not counted.

    Attributes:
        weights: How many there are.
        stored_bytes: Codes at their real width, with scales, offsets, zero points and points.
        huffman_bytes: The codes Huffman coded instead, the code tables counted.
    """

    weights: int
    stored_bytes: int
    huffman_bytes: int


def weight_storage(student: QuantizedStudent) -> WeightStorage:
    """Counted from the codes themselves.

    One Huffman code for all layers of a width, over their pooled histogram (Polino et al. 2018,
    arXiv 1802.05668, section 5); unlike there the code tables and the points are counted.
    """
    histograms: dict[int, np.ndarray[Any, Any]] = {}
    weights = stored = beside = 0
    for path, encoding in student.weights.items():
        values = student.graph.get_submodule(path).weight.detach().numpy()
        codes = encode(values, encoding)
        if isinstance(encoding, Affine):
            codes = codes - encoding.code_min
        found = np.bincount(codes.reshape(-1), minlength=1 << encoding.bits)
        histograms[encoding.bits] = histograms.get(encoding.bits, 0) + found
        size = stored_bytes(values.size, encoding)
        weights, stored = weights + values.size, stored + size
        beside += size - -(-values.size * encoding.bits // 8)
    coded = sum(huffman_bytes(counts) for counts in histograms.values())
    return WeightStorage(weights, stored, coded + beside)
