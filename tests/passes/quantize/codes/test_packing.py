"""Codes in bytes and back, laid out as ONNX lays out its own 4-bit tensors; tables unpack them."""

import numpy as np
import onnx_ir as ir
import pytest
from graphwright.passes.quantize.codes.packing import pack, packed_bytes, planes, table, unpack
from hypothesis import given, settings
from hypothesis import strategies as st

WIDTHS = [1, 2, 3, 4, 8]


@given(
    bits=st.sampled_from(WIDTHS),
    lead=st.lists(st.integers(0, 3), max_size=2),
    count=st.integers(0, 40),
    seed=st.integers(0, 99),
)
@settings(max_examples=150, deadline=None)
def test_codes_come_back_and_take_what_they_should(bits, lead, count, seed):
    codes = np.random.default_rng(seed).integers(0, 2**bits, (*lead, count))
    packed = pack(codes, bits)
    assert all(part.dtype == np.uint8 and part.shape[:-1] == tuple(lead) for part in packed)
    assert sum(part.shape[-1] for part in packed) == packed_bytes(count, bits)
    np.testing.assert_array_equal(unpack(packed, bits, count), codes)


@pytest.mark.parametrize(("bits", "kind"), [(4, ir.DataType.UINT4), (2, ir.DataType.UINT2)])
def test_the_layout_is_that_of_onnx_tensors(bits, kind):
    codes = np.random.default_rng(0).integers(0, 2**bits, 64).astype(np.uint8)
    theirs = ir.Tensor(codes.astype(kind.numpy()), dtype=kind).tobytes()
    assert pack(codes, bits)[0].tobytes() == theirs


def test_the_first_code_is_in_the_lowest_bits():
    assert pack(np.array([1, 2, 3, 0]), 2)[0].tolist() == [0b00_11_10_01]
    low, high = pack(np.array([1, 6, 7]), 3)
    assert (low.tolist(), high.tolist()) == ([0b11_10_01], [0b110])


@pytest.mark.parametrize("bits", WIDTHS)
def test_sizes_on_disk(bits):
    assert packed_bytes(1024, bits) == 128 * bits
    assert planes(bits) == ((2, 1) if bits == 3 else (bits,))


@given(st.sampled_from([1, 2, 4, 8]), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_a_table_holds_what_each_byte_stands_for(width, seed):
    rng = np.random.default_rng(seed)
    values, codes = rng.standard_normal((2**width, 3)), rng.integers(0, 2**width, 24)
    looked_up = table(width, values)[pack(codes, width)[0]]
    assert table(width, values).shape == (256, 8 // width, 3)
    np.testing.assert_array_equal(looked_up.reshape(24, 3), values[codes])


def test_codes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="codes go from 0 to 4, and 2 bits hold 0 to 3"):
        pack(np.array([0, 4]), 2)
    with pytest.raises(ValueError, match="from -1"):
        pack(np.array([-1, 1]), 8)
    with pytest.raises(ValueError, match="bits is 5"):
        pack(np.array([1]), 5)
