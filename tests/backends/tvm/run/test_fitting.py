"""Arrays go into compiled sizes and come out again."""

import numpy as np
import pytest
from graphwright.backends.bundles.record import Padding
from graphwright.backends.tvm.run.fitting import Input, aligned, cut, rows_of
from graphwright.ir.spec import InputSpec
from hypothesis import given
from hypothesis import strategies as st

PADDING = Padding("batch", "length", (), 7)
IDS = InputSpec("ids", "int64", ("batch", "length"), "token_ids", 50)
MASK = InputSpec("mask", "int64", ("batch", "length"), "attention_mask")


def filled(spec, given, **sizes):
    place = Input(spec, sizes, PADDING)
    place.array.fill(99)  # of an earlier call
    place.fill(given)
    return place.array


@given(st.integers(1, 4), st.integers(1, 6))
def test_more_tokens_are_masked_padding_and_more_rows_are_like_the_first(rows, tokens):
    ids = np.arange(1, rows * tokens + 1).reshape(rows, tokens)
    found = filled(IDS, ids, batch=4, length=6)
    mask = filled(MASK, np.ones((rows, tokens), np.int64), batch=4, length=6)
    np.testing.assert_array_equal(found[:rows, :tokens], ids)
    np.testing.assert_array_equal(mask[:rows, :tokens], 1)
    assert (found[:rows, tokens:] == 7).all()
    assert (mask[:rows, tokens:] == 0).all()
    for array in (found, mask):
        for row in array[rows:]:
            np.testing.assert_array_equal(row, array[0])


def test_axes_of_any_place_are_padded():
    spec = InputSpec("past", "float32", (2, "batch", "past", 3))
    given = np.random.default_rng(0).standard_normal((2, 1, 5, 3)).astype(np.float32)
    found = filled(spec, given, batch=3, past=5)
    for row in range(3):
        np.testing.assert_array_equal(found[:, row], given[:, 0])


def test_what_fits_as_it_is_is_not_copied_where_a_copy_would_cost():
    spec = InputSpec("past", "float32", ("batch", 64, 512))
    place = Input(spec, {"batch": 1}, PADDING)
    fits = aligned((1, 64, 512), "float32")
    assert place.takes(fits)
    fixed = fits.copy()
    fixed.flags.writeable = False
    raw = np.zeros(fits.size + 64, np.float32)
    start = next(i for i in range(64) if raw[i:].__array_interface__["data"][0] % 64 == 4)
    crooked = raw[start : start + fits.size].reshape(fits.shape)
    others = [fixed, crooked, np.zeros((64, 1, 512), np.float32).transpose(1, 0, 2)]
    others.append(aligned((1, 512, 64), "float32").transpose(0, 2, 1))
    assert [place.takes(other) for other in others[:2]] == [False, False]
    assert not place.takes(others[3])
    small = Input(MASK, {"batch": 1, "length": 8}, PADDING)
    assert not small.takes(aligned((1, 8), "int64"))


@given(st.sampled_from(["float32", "int64", "int8", "bool"]), st.lists(st.integers(1, 5), max_size=3))
def test_arrays_begin_where_vectors_may(dtype, shape):
    array = aligned(shape, dtype)
    assert array.__array_interface__["data"][0] % 64 == 0
    assert (array.shape, array.dtype.name) == (tuple(shape), dtype)


def test_results_are_cut_to_the_call():
    array = np.arange(24.0).reshape(2, 4, 3)
    axes = ("batch", "length", None)
    found = cut(array, axes, {"batch": 1, "length": 3})
    np.testing.assert_array_equal(found, array[:1, :3])
    assert found.base is None  # the padded array is free again
    assert cut(array, axes, {"batch": 2, "length": 4}) is array
    assert cut(array, (None, None, None), {"batch": 1, "length": 1}) is array


def test_rows_are_taken_along_every_axis_of_the_batch():
    array = np.arange(24).reshape(2, 4, 3)
    np.testing.assert_array_equal(rows_of(array, (2, "batch", 3), "batch", 1, 2), array[:, 1:3])
    assert rows_of(array, (2, 4, 3), "batch", 1, 2).shape == array.shape


@pytest.mark.parametrize("role", ["token_type_ids", "position_ids", "hidden"])
def test_only_token_ids_are_padded_with_the_padding_token(role):
    spec = InputSpec("x", "int64", ("batch", "length"), role)
    assert filled(spec, np.ones((1, 1), np.int64), batch=1, length=3)[0].tolist() == [1, 0, 0]
