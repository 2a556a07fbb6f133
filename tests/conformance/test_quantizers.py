from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgekd.core.types import Affine, PerChannel
from edgekd.numerics import encoding as encodings
from edgekd.quantize.quantizers._contract import QUANTIZERS
from edgekd.testing.quantizers import check_quantizer, variants

_VARIANTS = [settings for name in QUANTIZERS.names() for settings in variants(name)]


def words(settings: dict[str, Any]) -> str:
    return "-".join(str(value) for value in settings.values())


@pytest.mark.parametrize("settings", _VARIANTS, ids=words)
def test_conformance(settings: dict[str, Any]) -> None:
    check_quantizer(QUANTIZERS.build(settings))


@pytest.mark.parametrize("name", QUANTIZERS.names())
def test_more_bits_err_less(name: str) -> None:
    weight = np.random.default_rng(0).normal(0, 1, (16, 64)).astype(np.float32)
    errors = {}
    for settings in variants(name):
        encoding = QUANTIZERS.build(settings).encode(weight, PerChannel())
        error = float(np.square(encodings.round_trip(weight, encoding) - weight).mean())
        word = words({k: v for k, v in settings.items() if k != "bits"})
        errors.setdefault(word, []).append(error)
    for word, falling in errors.items():
        assert falling == sorted(falling, reverse=True), word


def test_the_suite_catches_a_broken_quantizer() -> None:
    class Shifted(type(QUANTIZERS.build("minmax"))):  # type: ignore[misc]
        def encode(self, weight: np.ndarray, granularity: object) -> Affine:
            good = super().encode(weight, granularity)
            return Affine(8, True, good.granularity, good.scale * 0.5, good.zero_point)

    with pytest.raises(AssertionError):
        check_quantizer(Shifted())
