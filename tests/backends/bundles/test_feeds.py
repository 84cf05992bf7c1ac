import numpy as np
import pytest
from graphwright.backends.bundles.feeds import check, coordinates, from_the_start
from graphwright.ir.errors import InputError
from graphwright.ir.spec import InputSpec
from hypothesis import given
from hypothesis import strategies as st

INPUTS = (
    InputSpec("ids", "int64", ("batch", "length"), "token_ids", 50),
    InputSpec("mask", "int64", ("batch", "length"), "attention_mask"),
    InputSpec("bias", "float32", ("batch", 3)),
)
SYMBOLS = {"batch": (1, 8), "length": (2, 16)}


def feed(batch=2, length=4):
    return {
        "ids": np.zeros((batch, length), np.int64),
        "mask": np.ones((batch, length), np.int64),
        "bias": np.zeros((batch, 3), np.float32),
    }


@given(st.integers(1, 8), st.integers(2, 16))
def test_what_fits_passes(batch, length):
    check(INPUTS, SYMBOLS, feed(batch, length))


@given(st.integers(0, 20), st.integers(0, 30), st.integers(0, 20), st.integers(-60, 60))
def test_exactly_what_does_not_fit_is_refused(batch, length, other, token):
    arrays = feed(batch, length)
    arrays["bias"] = np.zeros((other, 3), np.float32)
    arrays["ids"][...] = token
    fits = 1 <= batch <= 8 and 2 <= length <= 16 and other == batch and 0 <= token < 50
    if fits:
        check(INPUTS, SYMBOLS, arrays)
    else:
        with pytest.raises(InputError):
            check(INPUTS, SYMBOLS, arrays)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"mask": None}, "'mask' is missing; the model takes ids, mask, bias"),
        ({"mask_": np.ones((2, 4), np.int64)}, "no input 'mask_'; did you mean 'mask'"),
        ({"ids": [[1, 2, 3, 4]] * 2}, "ids: a list was given; pass a NumPy int64 array"),
        ({"ids": np.zeros((2, 4), np.int32)}, r"ids: its dtype is int32 .* int64; .*astype\('int64'\)"),
        ({"ids": np.zeros((2, 4, 1), np.int64)}, r"ids: its shape is \[2, 4, 1\] .* \[batch, length\]"),
        ({"mask": np.ones((2, 5), np.int64)}, "mask: its length is 5, but that of ids is 4"),
        ({"bias": np.zeros((2, 4), np.float32)}, "bias: axis 1 is 4 and the model takes 3"),
        ({"ids": np.full((2, 4), 50)}, "ids: 50 is out of range; ids go from 0 to 49"),
        ({"ids": np.full((2, 4), -1)}, "ids: -1 is out of range"),
    ],
)  # fmt: skip
def test_the_message_names_the_input_and_the_mend(change, sentence):
    arrays = {name: value for name, value in {**feed(), **change}.items() if value is not None}
    with pytest.raises(InputError, match=sentence):
        check(INPUTS, SYMBOLS, arrays)


def test_a_length_beyond_the_position_table_is_refused():
    with pytest.raises(InputError, match="ids: its length is 17 and the model takes at most 16"):
        check(INPUTS, SYMBOLS, feed(2, 17))


@given(st.integers(1, 6), st.integers(1, 20), st.data())
def test_coordinates_are_batch_length_and_share_of_zeros(batch, length, data):
    real = data.draw(st.lists(st.integers(1, length), min_size=batch, max_size=batch))
    arrays = feed(batch, length)
    arrays["mask"] = (np.arange(length) < np.array(real)[:, None]).astype(np.int64)
    assert coordinates(INPUTS, arrays) == (batch, length, pytest.approx(1 - sum(real) / (batch * length)))


def test_images_have_a_batch_and_nothing_else():
    spec = InputSpec("pixels", "float32", ("batch", 3, 8, 8), "pixel_values")
    assert coordinates([spec], {"pixels": np.zeros((5, 3, 8, 8), np.float32)}) == (5, 1, 0.0)


def test_an_index_beyond_its_axis_is_refused_and_one_from_the_end_is_counted_from_the_start():
    """TVM would read whatever lies behind the axis."""
    last = InputSpec("last", "int64", ("batch",), low=1, follows="length", reach=1, indexes=True)
    count = InputSpec("count", "int64", ("batch",), low=1, follows="length", reach=1)
    inputs = (*INPUTS, last, count)
    given = {**feed(), "count": np.array([99, 0]), "last": np.array([4, 1])}
    sizes = check(inputs, SYMBOLS, given)  # a count beyond the end reads nothing
    assert from_the_start(inputs, given, sizes) is given
    ends = {**given, "last": np.array([0, -3])}
    check(inputs, SYMBOLS, ends)
    assert from_the_start(inputs, ends, sizes)["last"].tolist() == [4, 1]
    for wrong in (5, -4, 10**9):
        with pytest.raises(InputError, match=f"last: {wrong} is out of range; at length 4 ind"):
            check(inputs, SYMBOLS, {**given, "last": np.array([1, wrong])})
