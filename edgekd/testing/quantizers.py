"""Conformance of a weight quantizer: run it on your own plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

import numpy as np
import torch

from edgekd.core.errors import RecipeError
from edgekd.core.types import Affine, PerBlock, PerChannel, PerTensor
from edgekd.numerics import encoding as numeric
from edgekd.numerics.groups import scale_shape, spread, to_rows
from edgekd.quantize.quantizers._contract import QUANTIZERS

if TYPE_CHECKING:
    from edgekd.core.types import Encoding
    from edgekd.numerics.groups import Granularity
    from edgekd.quantize.quantizers._contract import Quantizer

#: 7 divides none of the weights below: their last block is short
_GRANULARITIES = (
    *(PerTensor(), PerChannel(axis=0), PerChannel(axis=1)),
    *(PerBlock(size=16), PerBlock(size=7), PerBlock(size=1_000_000_000)),
)


def variants(name: str) -> list[dict[str, Any]]:
    """Settings of the quantizer `name`: each width it takes, and each word of its fields.

    A word is tried at every width; combinations that the quantizer refuses are left out.

    Raises:
        AssertionError: It takes no width at all.
    """
    fields = type(QUANTIZERS.build(name)).model_fields  # type: ignore[attr-defined]
    words: list[dict[str, Any]] = [{}]
    for field, about in fields.items():
        if get_origin(about.annotation) is Literal and field != "bits":
            words += [{field: w} for w in get_args(about.annotation) if w != about.default]
    wanted = [{"name": name, "bits": bits, **word} for word in words for bits in range(1, 9)]
    found = [settings for settings in wanted if _takes(settings)]
    assert found, f"{name} takes none of 1 to 8 bits"
    return found


def _takes(settings: dict[str, Any]) -> bool:
    try:
        QUANTIZERS.build(settings)
    except RecipeError:
        return False
    return True


def check_quantizer(quantizer: Quantizer) -> None:
    """Every promise of the contract, on weights that real layers have.

    Raises:
        AssertionError: Naming the promise that is broken.
    """
    rng = np.random.default_rng(0)
    weights = {
        "convolution": rng.normal(0, 0.1, (8, 4, 3, 3)),
        "linear": rng.normal(0, 1.0, (10, 32)),
        "one outlier": np.where(rng.random((8, 64)) > 0.99, 10.0, rng.normal(0, 0.1, (8, 64))),
        "an empty channel": np.concatenate([np.zeros((1, 16)), rng.normal(0, 1, (7, 16))]),
        "a constant": np.full((4, 9), 0.25),
    }
    for title, values in weights.items():
        weight = values.astype(np.float32)
        for granularity in _GRANULARITIES:
            where = f"{title}, {granularity.kind}"
            encoding = quantizer.encode(weight, granularity)
            _check_codes(weight, encoding, quantizer.bits, where)
            _check_training(quantizer, weight, granularity, where)
            again = quantizer.encode(weight, granularity)
            assert np.array_equal(again.scale, encoding.scale), f"{where}: not deterministic"


def _check_codes(weight: np.ndarray, encoding: Encoding, bits: int, where: str) -> None:
    assert encoding.bits == bits, f"{where}: bits differ"
    assert encoding.scale.shape == scale_shape(weight.shape, encoding.granularity), where
    assert np.isfinite(encoding.scale).all(), f"{where}: scale not finite"
    assert (encoding.scale > 0).all(), f"{where}: scale not positive"
    codes = numeric.encode(weight, encoding)
    assert 0 <= int(codes.max()) - int(codes.min()) < 2**bits, f"{where}: more codes than bits"
    if isinstance(encoding, Affine):
        assert codes.min() >= encoding.code_min, f"{where}: code below its range"
        assert codes.max() <= encoding.code_max, f"{where}: code above its range"
    else:
        assert (np.diff(encoding.centroids) >= 0).all(), f"{where}: points are not in order"
        assert encoding.centroids.size <= 2**bits, f"{where}: more points than codes"
    back = numeric.decode(codes, encoding)
    assert np.isfinite(back).all(), f"{where}: not finite"
    if encoding.offset is None and isinstance(encoding, Affine):
        assert not back[weight == 0].any(), f"{where}: zero does not stay zero"
    # a grid as wide as the largest weight errs by half a step at most
    half_step = np.abs(to_rows(weight, encoding.granularity)).max(1) / (2**bits - 1)
    even = spread(half_step, weight.shape, encoding.granularity)
    allowed = max(np.square(weight).mean(), np.square(np.broadcast_to(even, weight.shape)).mean())
    error = np.square(back - weight).mean()
    assert error <= allowed * (1 + 1e-5), f"{where}: worse than zeros and an even grid"


def _check_training(
    quantizer: Quantizer, weight: np.ndarray, granularity: Granularity, where: str
) -> None:
    tensor = torch.from_numpy(weight).requires_grad_()
    fake = quantizer.fake_quant(tensor, granularity)
    assert isinstance(fake, torch.nn.Module), f"{where}: the fake-quant is no module"
    fake.eval()
    out = fake(tensor)
    encoding = fake.encoding(tensor)
    stored = numeric.round_trip(weight, encoding)
    assert np.allclose(out.detach().numpy(), stored, atol=1e-7), (
        f"{where}: trains on other values than it stores"
    )
    torch.autograd.backward(fake.train()(tensor).sum())
    if not getattr(fake, "trains_layer", True):
        assert tensor.grad is None, f"{where}: a gradient reaches a weight that is kept"
        grads = [p.grad for p in fake.parameters()]
        assert grads, f"{where}: nothing to train"
        for grad in grads:
            assert grad is not None, f"{where}: no gradient reaches a parameter"
            assert torch.isfinite(grad).all(), f"{where}: gradient not finite"
        return
    assert tensor.grad is not None, f"{where}: no gradient reaches the weight"
    assert torch.isfinite(tensor.grad).all(), f"{where}: gradient not finite"
    assert tensor.grad.abs().sum() > 0, f"{where}: gradient is zero everywhere"
