"""The stream of calibration activations: which rows come through, what is refused, that nothing piles up."""

from dataclasses import replace

import numpy as np
import pytest
from graphwright.ir.errors import DataError
from graphwright.passes.common.calibration import activations, calibrate, check
from graphwright.passes.manager.contract import Context
from graphwright.passes.quantize.calibrate.ranges import MinMax
from handmade import parsed

TABLE = np.arange(32, dtype=np.float32).reshape(8, 4)
LOOKUP = ("h = Gather (t, ids) y = Relu (h)", "int64[batch,length] ids, int64[batch,length] mask")


def lookup(body=LOOKUP[0], inputs=LOOKUP[1], outputs="float[batch,length,4] y", **weights):
    return parsed(body, inputs, outputs, {"t": TABLE, **weights})


def feed(ids, mask=None):
    ids = np.array(ids)
    return {"ids": ids, "mask": np.ones_like(ids) if mask is None else np.array(mask)}


def rows(program, names, feeds):
    found = list(activations(program, names, Context(calibration=feeds)))
    return {name: np.concatenate([one[name] for one in found]) for name in names}


FEEDS = [feed([[1, 2, 0], [3, 0, 0]], [[1, 1, 0], [1, 0, 0]]), feed([[0, 5], [6, 7]], [[0, 1], [1, 1]])]
REAL = TABLE[[1, 2, 3, 5, 6, 7]]


def test_padding_is_left_out_on_either_side():
    assert (rows(lookup(), ["h"], FEEDS)["h"] == REAL).all()


def test_a_mask_that_is_1_for_padding_leaves_the_same_out():
    program = lookup()
    inputs = tuple(replace(s, hidden=1) if s.name == "mask" else s for s in program.inputs)
    around = replace(program, inputs=inputs)
    feeds = [{**feed, "mask": 1 - feed["mask"]} for feed in FEEDS]
    assert (rows(around, ["h"], feeds)["h"] == REAL).all()
    full = [feed([[1, 2], [3, 4]], [[0, 0], [0, 0]])]
    check(around, full)
    with pytest.raises(DataError, match="is all padding"):
        check(program, full)


def test_rows_that_were_flattened_keep_their_padding_out():
    body = "h = Gather (t, ids) k = Constant <value_ints = [-1, 4]> () f = Reshape (h, k) y = Relu (f)"
    assert (rows(lookup(body, outputs="float[rows,4] y"), ["f"], FEEDS)["f"] == REAL).all()


def test_packed_rows_have_no_padding_to_leave_out():
    body = (
        "h = Gather (t, ids) k = Constant <value_ints = [-1, 4]> () f = Reshape (h, k) "
        "m = Constant <value_ints = [-1]> () g = Reshape (mask, m) b = Cast <to = 9> (g) "
        "p = Compress <axis = 0> (f, b) y = Relu (p)"
    )
    assert (rows(lookup(body, outputs="float[tokens,4] y"), ["p"], FEEDS)["p"] == REAL).all()


def test_rows_that_are_not_finite_are_left_out():
    table = TABLE.copy()
    table[3], table[5, 2] = np.nan, -np.inf
    found = rows(lookup(t=table), ["h"], FEEDS)["h"]
    assert (found == table[[1, 2, 6, 7]]).all()


def test_a_value_without_a_finite_row_is_an_error_that_names_it():
    program = lookup("h = Gather (t, ids) n = Div (h, zero) y = Relu (n)", zero=np.float32(0))
    collectors = {"h": MinMax(), "n": MinMax()}
    with pytest.raises(DataError, match="leaves 'n' without one finite row"):
        calibrate(program, collectors, Context(calibration=FEEDS))


def test_collectors_see_their_own_rows():
    collectors = {"h": MinMax(), "y": MinMax(4)}
    calibrate(lookup(), collectors, Context(calibration=FEEDS))
    assert collectors["h"].range() == (REAL.min(), REAL.max())
    assert (collectors["y"].range()[1] == REAL.max(axis=0)).all()


def test_few_feeds_are_alive_at_a_time():
    """Feeds are drawn when they are needed, and let go: those alive are the ones that a step still names."""
    import weakref

    drawn: list[weakref.ref] = []

    class Lazy(list):
        def __iter__(self):
            for one in list.__iter__(self):
                assert sum(ref() is not None for ref in drawn) <= 5
                one = {name: array.copy() for name, array in one.items()}
                drawn.append(weakref.ref(one["ids"]))
                yield one
                del one

    stream = activations(lookup(), ["h"], Context(calibration=Lazy(FEEDS * 32)))
    assert sum(len(found["h"]) for found in stream) == 32 * len(REAL)
    assert len(drawn) == 2 * 32 * len(FEEDS)  # once to check, once to run


BAD = {
    "empty": ([], "the calibration data are empty: give it real inputs"),
    "no rows": (
        [feed(np.zeros((0, 3), np.int64))],
        "the calibration data are too short: give it real inputs",
    ),
    "one row": ([feed([[4, 4, 4]])], "constant, it is one value over and over: give it different inputs"),
    "equal rows": ([feed([[1, 2, 3]] * 3)], "constant, all 3 rows are the same"),
    "equal but for padding": (
        [feed([[1, 2, 0]], [[1, 1, 0]]), feed([[1, 2, 7, 7]], [[1, 1, 0, 0]])],
        "constant, all 2 rows are the same",
    ),
    "all padding": ([FEEDS[0], feed([[1, 2]], [[0, 0]])], "calibration feed 2 is all padding: leave it out"),
    "an input is missing": ([FEEDS[0], {"ids": np.ones((1, 2), np.int64)}], "feed 2 has no 'mask'"),
    "another rank": ([{**FEEDS[0], "ids": np.ones(3, np.int64)}], r"feed 1: 'ids' is \(3,\) and the graph"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_data_is_named_with_the_mend(case):
    feeds, message = BAD[case]
    with pytest.raises(DataError, match=message):
        check(lookup(), feeds)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_inputs_that_are_no_numbers(bad):
    program = parsed("y = Relu (x)", "float[batch,4] x", "float[batch,4] y")
    good = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    check(program, [{"x": good}])
    broken = good.copy()
    broken[1, 2] = bad
    with pytest.raises(
        DataError, match="feed 2 has NaN or infinite values in 'x': repair it or leave it out"
    ):
        check(program, [{"x": good}, {"x": broken}])


FIXED = "int64[4,length] ids, int64[4,length] mask"


def test_feeds_shorter_than_a_fixed_batch():
    program = lookup(inputs=FIXED, outputs="float[4,length,4] y")
    whole, part = feed([[1, 2], [3, 4], [5, 6], [7, 1]]), feed([[1, 2], [3, 4]])
    with pytest.raises(
        DataError, match="too short: the graph takes batches of 4 and no feed has as many rows"
    ):
        check(program, [part])
    # The last batch of a file is often short: the others do.
    assert len(rows(program, ["h"], [whole, part])["h"]) == 8


def test_feeds_of_another_length_than_the_fixed_one():
    program = lookup(inputs="int64[batch,3] ids, int64[batch,3] mask", outputs="float[batch,3,4] y")
    with pytest.raises(DataError, match=r"'ids' is \(2, 2\) and the graph takes \('batch', 3\)"):
        check(program, [FEEDS[0], FEEDS[1]])


def test_a_mask_may_be_constant_where_ids_are_not():
    check(lookup(), [feed([[1, 2], [3, 4]])])
