from __future__ import annotations

import numpy as np
import pytest

from edgekd.core.types import Affine, PerChannel
from edgekd.numerics import affine as numeric
from edgekd.quantize.quantizers._contract import QUANTIZERS
from edgekd.testing.quantizers import check_quantizer


@pytest.mark.parametrize("name", QUANTIZERS.names())
@pytest.mark.parametrize("bits", [2, 3, 4, 6, 8])
def test_conformance(name: str, bits: int) -> None:
    check_quantizer(QUANTIZERS.build({"name": name, "bits": bits}))


@pytest.mark.parametrize("name", QUANTIZERS.names())
def test_more_bits_err_less(name: str) -> None:
    weight = np.random.default_rng(0).normal(0, 1, (16, 64)).astype(np.float32)
    errors = []
    for bits in (2, 4, 6, 8):
        encoding = QUANTIZERS.build({"name": name, "bits": bits}).encode(weight, PerChannel())
        assert isinstance(encoding, Affine)
        errors.append(np.square(numeric.round_trip(weight, encoding) - weight).mean())
    assert errors == sorted(errors, reverse=True)
    # four more bits: 16 times finer steps, 256 times smaller squared error; half of that is enough
    assert errors[0] / errors[3] > 128**2 / 10


def test_the_suite_catches_a_broken_quantizer() -> None:
    class Shifted(type(QUANTIZERS.build("minmax"))):  # type: ignore[misc]
        def encode(self, weight: np.ndarray, granularity: object) -> Affine:
            good = super().encode(weight, granularity)
            return Affine(8, True, good.granularity, good.scale * 0.5, good.zero_point)

    with pytest.raises(AssertionError):
        check_quantizer(Shifted())
