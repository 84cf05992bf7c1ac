"""Probe inputs: within the program's bounds, of every mask pattern, and the same for the same seed."""

from dataclasses import replace

import numpy as np
import pytest
import zoo
from graphwright.ir.execute import execute
from graphwright.ir.inputs.probe import example, feed, probes, shared
from graphwright.ir.program import Program
from graphwright.ir.spec import InputSpec
from hypothesis import given, settings
from hypothesis import strategies as st

IDS = InputSpec("ids", "int64", ("batch", "length"), "token_ids", 50)
MASK = InputSpec("mask", "int64", ("batch", "length"), "attention_mask")
SYMBOLS = {"batch": (1, 2**31 - 1), "length": (1, 20)}


def program(*inputs, symbols=None, **info):
    return Program(None, "fx", inputs or (IDS, MASK), ("y",), symbols=symbols or SYMBOLS, info=info)


def same(a, b):
    return len(a) == len(b) and all(
        x.keys() == y.keys() and all(np.array_equal(x[k], y[k]) for k in x) for x, y in zip(a, b, strict=True)
    )


def test_probes_depend_on_the_seed_alone():
    assert same(probes(program(), 3), probes(program(), 3))
    assert not same(probes(program(), 3), probes(program(), 4))


def test_probes_have_several_sizes_and_every_mask_pattern():
    found = probes(program(), 0)
    shapes = {f["ids"].shape for f in found}
    assert {(1, 1), (1, 9)} <= shapes
    assert len({s[0] for s in shapes}) > 3
    assert len({s[1] for s in shapes}) > 4
    kinds = set()
    for mask in (f["mask"] for f in found):
        assert mask.dtype == np.int64
        assert set(np.unique(mask)) <= {0, 1}
        assert mask.sum(-1).min() >= 1  # a row of padding alone is nobody's input
        kinds.add("full" if mask.all() else "left" if (np.diff(mask) >= 0).all() else "right")
        kinds |= {"single"} if mask.shape[1] > 1 and (mask.sum(-1) == 1).any() else set()
    assert kinds == {"full", "left", "right", "single"}


def test_masked_positions_hold_the_padding_id():
    for f in probes(program(pad_token_id=7), 0):
        assert (f["ids"][f["mask"] == 0] == 7).all()
    assert any((f["ids"][f["mask"] == 0] != 7).any() for f in probes(program(), 0))
    assert all(f["ids"].max() < 50 for f in probes(program(pad_token_id=99), 0))  # no such id


def test_a_decoder_has_a_mask_and_padding_of_its_own():
    ids = InputSpec("decoder_ids", "int64", ("batch", "target"), "decoder_token_ids", 9)
    mask = InputSpec("decoder_mask", "bool", ("batch", "target"), "decoder_attention_mask")
    symbols = {**SYMBOLS, "target": (1, 12)}
    for f in probes(program(IDS, MASK, ids, mask, symbols=symbols, pad_token_id=3), 0):
        assert f["decoder_mask"].dtype == bool
        assert (f["decoder_ids"][~f["decoder_mask"]] == 3).all()
        assert f["decoder_ids"].shape == f["decoder_mask"].shape
        assert f["decoder_ids"].shape[1] <= 12


def test_every_role_gets_what_it_can_take():
    inputs = (
        InputSpec("ids", "int32", ("batch", "length"), "token_ids", 3),
        InputSpec("types", "int64", ("batch", "length"), "token_type_ids", 2),
        InputSpec("positions", "int64", ("batch", "length"), "position_ids", 6),
        InputSpec("pixels", "float32", ("batch", 3, 4, 4), "pixel_values"),
        InputSpec("half", "float16", ("batch", "length"), "other"),
        InputSpec("brain", "bfloat16", ("batch", "length"), "other"),
        InputSpec("flag", "bool", ("batch",), "other"),
        InputSpec("count", "int64", (), "other"),
    )
    flags = [f["flag"].all() for f in probes(program(*inputs), 0)]
    assert len(set(flags)) == 2  # one that is always set would leave half of the graph untried
    for f in probes(program(*inputs), 0):
        assert [f[s.name].dtype.name for s in inputs] == [s.dtype for s in inputs]
        assert all(0 <= f[n].min() <= f[n].max() < high for n, high in (("ids", 3), ("types", 2)))
        assert (f["positions"] == np.arange(f["ids"].shape[1]) % 6).all()
        assert f["pixels"].shape == (len(f["ids"]), 3, 4, 4)
        assert f["pixels"].std() > 0.5
        assert f["count"].shape == ()


def test_without_a_mask_no_shape_is_tried_twice():
    shapes = [f["ids"].shape for f in probes(program(IDS), 0)]
    assert len(shapes) == len(set(shapes))


BOUND = st.tuples(st.integers(1, 40), st.integers(0, 40)).map(lambda b: (b[0], b[0] + b[1]))


@settings(max_examples=40, deadline=None)
@given(st.fixed_dictionaries({"batch": BOUND, "length": BOUND, "target": BOUND}), st.integers(0, 9))
def test_sizes_stay_within_their_symbols_bounds(symbols, seed):
    ids = InputSpec("decoder_ids", "int64", ("batch", "target"), "decoder_token_ids", 9)
    found = probes(program(IDS, MASK, ids, symbols=symbols), seed)
    assert found
    for f in [*found, example(program(IDS, MASK, ids, symbols=symbols))]:
        sizes = {"batch": len(f["ids"]), "length": f["ids"].shape[1], "target": f["decoder_ids"].shape[1]}
        assert all(low <= sizes[symbol] <= high for symbol, (low, high) in symbols.items())


def test_an_example_to_trace_with_tells_its_axes_apart():
    f = example(zoo.fx_program("t5"))
    sizes = [*f["input_ids"].shape, f["decoder_input_ids"].shape[1]]
    assert len(set(sizes)) == 3
    assert min(sizes) > 1


@pytest.mark.parametrize(
    ("pattern", "rows"),
    [
        ("ones", ["1111", "1111", "1111"]),
        ("right", ["1100", "1111", "1100"]),
        ("ragged", ["1111", "1110", "1100"]),
        ("single", ["1111", "1111", "1000"]),
        ("left", ["1111", "0111", "0011"]),
    ],
)
def test_patterns_are_what_they_are_called(pattern, rows):
    mask = feed(program(), {"batch": 3, "length": 4}, pattern)["mask"]
    assert ["".join(map(str, row)) for row in mask] == rows


@pytest.mark.parametrize("name", ["bert", "t5", "llama", "vit", "whisper", "nanogpt"])
def test_models_run_on_their_probes_and_give_numbers(name):
    model = zoo.fx_program(name)
    for result in execute(model, probes(model, 0)):
        assert all(np.isfinite(array).all() for array in result.values())


def test_probes_of_two_programs_fit_both():
    one = program(symbols={"batch": (1, 99), "length": (1, 40)})
    other = program(replace(IDS, high=20, low=2, shape=(3, "tokens")), MASK, symbols={"tokens": (6, 9)})
    for f in probes(shared(one, other), 0):
        assert f["ids"].shape[0] == 3
        assert 6 <= f["ids"].shape[1] <= 9
        assert 2 <= f["ids"].min() <= f["ids"].max() < 20
    apart = program(symbols={"batch": (1, 99), "length": (41, 50)})
    assert shared(one, apart).symbols["length"] == (1, 40)
