"""Which compiled functions run a call: always enough, never more work than need be."""

import itertools
from dataclasses import replace

import pytest
from graphwright.backends.bundles.record import Function, Padding
from graphwright.backends.tvm.run.choice import CALL, Choice
from graphwright.ir.errors import InputError
from hypothesis import given
from hypothesis import strategies as st

BOTH = Padding("batch", "length", ())


def functions(*shapes, names=("batch", "length")):
    return [Function(dict(zip(names, shape, strict=True)), f"run_{i}", ()) for i, shape in enumerate(shapes)]


@pytest.mark.parametrize(
    ("call", "chosen"),
    [
        ((1, 16), [(0, 1)]),
        ((1, 9), [(0, 1)]),
        ((1, 17), [(1, 1)]),
        ((8, 128), [(2, 8)]),
        ((2, 128), [(1, 1), (1, 1)]),  # 8x128 would be four times the work
        ((7, 100), [(2, 7)]),
        ((9, 128), [(2, 8), (1, 1)]),
        ((20, 128), [(2, 8), (2, 8), (1, 1), (1, 1), (1, 1), (1, 1)]),
    ],
)
def test_calls_go_where_they_fit(call, chosen):
    choice = Choice(functions((1, 16), (1, 128), (8, 128)), BOTH)
    assert list(choice.pieces({"batch": call[0], "length": call[1]})) == chosen


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 200)), min_size=1, max_size=3, unique=True),
    st.integers(1, 12),
    st.integers(1, 200),
)
def test_the_pieces_hold_the_call_for_the_least_work(shapes, rows, length):
    choice = Choice(functions(*shapes), BOTH)
    fitting = [number for number, (_, longest) in enumerate(shapes) if longest >= length]
    if not fitting:
        with pytest.raises(InputError):
            choice.pieces({"batch": rows, "length": length})
        return
    pieces = choice.pieces({"batch": rows, "length": length})
    assert sum(held for _, held in pieces) == rows
    assert all(0 < held <= shapes[number][0] and shapes[number][1] >= length for number, held in pieces)

    def work(counts):
        return sum(n * (shapes[i][0] * shapes[i][1] + CALL) for i, n in zip(fitting, counts, strict=True))

    every = itertools.product(*(range(-(-rows // shapes[i][0]) + 1) for i in fitting))
    enough = [c for c in every if sum(n * shapes[i][0] for i, n in zip(fitting, c, strict=True)) >= rows]
    taken = [[number for number, _ in pieces].count(i) for i in fitting]
    assert work(taken) == min(map(work, enough))


def test_functions_that_leave_padding_out_are_called_as_seldom_as_can_be():
    leaving = [replace(each, mask="mask") for each in functions((1, 16), (1, 128), (8, 128), (32, 64))]
    choice = Choice(leaving, BOTH)
    for call, chosen in (
        ((1, 16), [(0, 1)]),
        ((1, 60), [(1, 1)]),  # of those that cost alike, the smallest
        ((2, 128), [(2, 2)]),
        ((2, 60), [(2, 2)]),
        ((20, 60), [(3, 20)]),
        ((9, 128), [(2, 8), (1, 1)]),
        ((33, 16), [(3, 32), (0, 1)]),
    ):
        assert list(choice.pieces({"batch": call[0], "length": call[1]})) == chosen, call


def test_many_rows_take_many_calls():
    pieces = Choice(functions((1, 16), (32, 16)), BOTH).pieces({"batch": 100_001, "length": 16})
    assert [number for number, _ in pieces].count(1) == 3125
    assert sum(rows for _, rows in pieces) == 100_001


def test_other_symbols_must_fit_exactly():
    names = ("batch", "past", "length")
    choice = Choice(functions((1, 32, 1), (1, 64, 1), names=names), Padding("batch", None, ()))
    assert choice.pieces({"batch": 1, "past": 64, "length": 1}) == ((1, 1),)
    with pytest.raises(
        InputError, match=r"of past 48 x length 1, and padding would change .* past 32 x length 1, past 64"
    ):
        choice.pieces({"batch": 1, "past": 48, "length": 1})


def test_where_nothing_may_be_padded_only_compiled_sizes_run():
    choice = Choice(functions((2, 16), (1, 16)), Padding(None, None, ()))
    assert choice.pieces({"batch": 1, "length": 16}) == ((1, 0),)
    with pytest.raises(
        InputError, match=r"batch 3 x length 16, and padding .*: batch 2 x length 16, batch 1"
    ):
        choice.pieces({"batch": 3, "length": 16})


def test_a_program_without_symbols_has_one_function():
    assert Choice(functions((), names=()), Padding(None, None, ())).pieces({}) == ((0, 0),)
