from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekd.numerics.packing import field_bits, pack, unpack

# by hand: fields from the lowest bit up, wide codes split into parts, lowest part first
GOLDEN = {
    1: ([1, 0, 1, 1, 0, 0, 0, 1, 1], [[0b10001101, 0b1]]),
    2: ([1, 2, 3, 0, 2], [[0b00111001, 0b10]]),
    3: ([5, 2, 7], [[0b101], [0b110], [0b101]]),
    4: ([0x1, 0xA, 0xF], [[0xA1, 0x0F]]),
    5: ([17, 6], [[0b01], [0b10], [0b10], [0b00], [0b01]]),
    6: ([0b110110, 0b001011], [[0b1110], [0b1001], [0b0011]]),
    7: ([127, 1], [[0b11], *[[0b01]] * 6]),
    8: ([7, 255], [[7, 255]]),
}


@pytest.mark.parametrize("bits", GOLDEN)
def test_bytes_are_these(bits: int) -> None:
    codes, packed = GOLDEN[bits]
    assert pack(np.array(codes), bits).tolist() == packed
    assert unpack(np.array(packed, np.uint8), bits, len(codes)).tolist() == codes


@given(
    bits=st.integers(1, 8),
    signed=st.booleans(),
    shape=st.lists(st.integers(1, 7), max_size=4),
    seed=st.integers(0, 99),
)
def test_nothing_is_lost(bits: int, signed: bool, shape: list[int], seed: int) -> None:
    low, high = (-(1 << bits) // 2, (1 << bits) // 2) if signed else (0, 1 << bits)
    codes = np.random.default_rng(seed).integers(low, high, shape)
    packed = pack(codes, bits)
    assert packed.shape == (
        bits // field_bits(bits),
        -(-codes.size * field_bits(bits) // 8),
    )
    read = unpack(packed, bits, codes.size)
    assert np.array_equal(read, codes.reshape(-1) & ((1 << bits) - 1))


def test_two_and_four_bits_are_laid_out_as_in_onnx() -> None:
    from onnx import TensorProto, helper, numpy_helper

    codes = np.random.default_rng(0).integers(0, 4, 30)
    for bits, element in ((4, TensorProto.UINT4), (2, TensorProto.UINT2)):
        raw = pack(codes, bits).tobytes()
        tensor = helper.make_tensor("codes", element, codes.shape, raw, raw=True)
        assert np.array_equal(numpy_helper.to_array(tensor).astype(int), codes)


@pytest.mark.parametrize("code", [-3, 4])
def test_codes_that_need_more_bits_are_refused(code: int) -> None:
    with pytest.raises(ValueError, match="do not fit in 2 bits"):
        pack(np.array([0, code]), 2)


def test_no_codes_take_no_bytes() -> None:
    assert pack(np.zeros(0, int), 3).shape == (3, 0)
    assert unpack(np.zeros((3, 0), np.uint8), 3, 0).shape == (0,)
