"""A bundle answers or refuses in one sentence whatever Python value it is called with, on both runtimes."""

import numpy as np
import pytest
from graphwright.backends.bundles.bundle import Variant, write
from graphwright.backends.running.runner import load
from graphwright.backends.tvm.backend import Tvm
from graphwright.backends.tvm.run.artifact import write_compiled
from graphwright.ir.errors import GraphwrightError, InputError
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays


@pytest.fixture(scope="module")
def bundles(make, tmp_path_factory):
    """The tiny encoder for ONNX Runtime, and compiled at 2x8."""
    folder = tmp_path_factory.mktemp("total")
    graph = write(folder / "graph", [Variant("only", make.encoder())], threads=1)
    artifact = Tvm().build(make.encoder(), threads=1, buckets=[{"batch": 2, "length": 8}])
    return load(graph), load(write_compiled(folder / "compiled", artifact))


def said(call):
    """What a call that is refused says, "" for an answer. Anything but a GraphwrightError goes through."""
    found = ""
    try:
        call()
    except GraphwrightError as error:
        found = str(error)
    assert "\n" not in found
    return found


class Strange:
    """No repr, no order, no truth."""

    def __repr__(self):
        raise ValueError("no repr")

    __bool__ = __repr__


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=4),
    st.binary(max_size=4), st.builds(Strange), st.complex_numbers(),
)  # fmt: skip
anything = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(st.one_of(st.text(max_size=3), st.integers(), st.none()), inner, max_size=3),
        st.sets(st.integers(), max_size=3),
        st.lists(inner, max_size=3).map(iter),
    ),
    max_leaves=6,
)
dtypes = st.one_of(
    arrays.scalar_dtypes(),
    arrays.integer_dtypes(endianness="?", sizes=(64,)),
    st.just(np.dtype(object)),
)
any_array = dtypes.flatmap(
    lambda dtype: (
        arrays.arrays(dtype, arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=9))
        if not dtype.hasobject
        else st.lists(scalars, max_size=3).map(lambda items: np.array([*items, None], object)[:-1])
    )
)
ids = arrays.arrays(
    np.int64,
    st.tuples(st.integers(0, 70), st.integers(0, 14)),
    elements=st.one_of(st.integers(0, 39), st.integers(-(2**63), 2**63 - 1)),
)


@settings(max_examples=150, deadline=None)
@given(feed=anything)
@example(feed=None)
@example(feed=[("input_ids", np.ones((1, 2), np.int64))])
@example(feed={None: 1, "input_ids": 2, "attention_mask": 3})
def test_run_takes_a_feed_or_says_what_it_would_take(bundles, feed):
    for bundle in bundles:
        assert said(lambda bundle=bundle: bundle.run(feed))


@settings(max_examples=150, deadline=None)
@given(array=st.one_of(any_array, anything), mask=st.booleans())
def test_arrays_of_every_kind_are_computed_with_or_refused(bundles, array, mask):
    for bundle in bundles:
        feed = {"input_ids": np.ones((2, 4), np.int64), "attention_mask": np.ones((2, 4), np.int64)}
        feed["attention_mask" if mask else "input_ids"] = array
        said(lambda bundle=bundle, feed=feed: bundle.run(feed))


@settings(max_examples=100, deadline=None)
@given(array=ids)
@example(array=np.full((2, 4), -(2**63)))
@example(array=np.full((2, 4), 2**63 - 1))
def test_ids_no_table_has_are_refused_and_the_others_computed(bundles, make, array):
    feed = {"input_ids": array, "attention_mask": np.ones_like(array)}
    for bundle, longest in zip(bundles, (12, 8), strict=True):
        fits = 0 < array.shape[0] <= 64 and 0 < array.shape[1] <= longest
        if fits and array.min() >= 0 and array.max() < 40:
            found = bundle.run(feed)["embedding"]
            np.testing.assert_allclose(found, make.expected(make.weights(), feed), rtol=1e-5, atol=1e-5)
        else:
            assert said(lambda bundle=bundle: bundle.run(feed))


def test_the_layout_of_an_array_changes_nothing(bundles, make):
    feed = make.feed(2, 8, 3)
    wanted = make.expected(make.weights(), feed)
    layouts = (np.asfortranarray, lambda x: np.repeat(x, 2, axis=1)[:, ::2], lambda x: x[::-1][::-1])
    for bundle in bundles:
        for layout in layouts:
            found = bundle.run({name: layout(array) for name, array in feed.items()})["embedding"]
            np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
        swapped = {name: array.astype(">i8") for name, array in feed.items()}
        assert "the other order" in said(lambda bundle=bundle, swapped=swapped: bundle.run(swapped))
        hidden = {**feed, "input_ids": np.ma.masked_equal(feed["input_ids"], 1)}
        assert "masked arrays" in said(lambda bundle=bundle, hidden=hidden: bundle.run(hidden))
        bundle.run(feed)
        assert "masked arrays" in said(lambda bundle=bundle, hidden=hidden: bundle.run(hidden))


def test_tensors_of_torch_are_named(bundles):
    import torch

    ones = torch.ones(2, 4, dtype=torch.int64)
    for bundle in bundles:
        found = said(lambda bundle=bundle: bundle.run({"input_ids": ones, "attention_mask": ones}))
        assert "a Tensor was given; pass a NumPy int64 array" in found


TEXTS = ["a b", "c d e f", "g"]


@pytest.mark.parametrize(
    "given_as",
    [
        tuple,
        iter,
        np.array,
        lambda texts: np.array(texts, object),
        lambda texts: (text for text in texts),
        lambda texts: dict.fromkeys(texts).keys(),
        lambda texts: [np.str_(text) for text in texts],
    ],
)
def test_texts_come_in_anything_that_has_an_order(bundles, given_as):
    for bundle in bundles:
        wanted = bundle(TEXTS)
        np.testing.assert_array_equal(bundle(given_as(TEXTS)), wanted)
        feed = bundle.encode(given_as(TEXTS), given_as(TEXTS))
        np.testing.assert_array_equal(feed["input_ids"], bundle.encode(TEXTS, TEXTS)["input_ids"])


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [
        (None, "texts are a list of strings, not a NoneType"),
        (3, "not a int"),
        (np.array("a"), "not a ndarray"),
        ({"a", "b"}, "a set of texts has no order to answer in"),
        ({"a": 1}, "a dict of texts has no order"),
        (b"a", "decode them first"),
        ([], "there are no texts"),
        (iter(()), "there are no texts"),
        (["a", None], r"texts\[1\] is a NoneType"),
        ([["a", "b"]], r"texts\[0\] is a list"),
        ([("a", "b")], r"texts\[0\] is a tuple"),
        (np.array([["a"]]), r"texts\[0\] is a ndarray"),
        (np.array([b"a"]), r"texts\[0\] is a bytes_"),
        (["a", "\ud83d"], r"texts\[1\] holds U\+D83D, half of a character"),
    ],
)
def test_what_is_no_text_is_refused_by_its_place(bundles, texts, sentence):
    for bundle in bundles:
        for call in (bundle, bundle.encode):
            with pytest.raises(InputError, match=sentence):
                call(texts)


@pytest.mark.parametrize(
    ("pairs", "sentence"),
    [
        (["a"], "there are 2 texts and 1 pairs; give one for each text"),
        ([], "there are no pairs"),
        ("ab", r"one string was given where a list of pairs is wanted; write \[text\]"),
        (["a", None], r"pairs\[1\] is a NoneType"),
        ({"a", "b"}, "a set of pairs has no order"),
        (7, "pairs are a list of strings, not a int"),
    ],
)
def test_pairs_are_as_many_as_texts(bundles, pairs, sentence):
    for bundle in bundles:
        with pytest.raises(InputError, match=sentence):
            bundle.encode(["a", "b"], pairs)


def test_a_generator_that_does_not_end_is_stopped(bundles, monkeypatch):
    monkeypatch.setattr("graphwright.ir.inputs.texts.MOST", 1000)
    with pytest.raises(InputError, match="at most 1,000 texts go into one call"):
        bundles[0](text for text in iter(lambda: "a", None))


@settings(max_examples=150, deadline=None)
@given(texts=anything, pairs=anything)
def test_texts_of_every_kind_are_answered_or_refused(bundles, texts, pairs):
    for bundle in bundles:
        said(lambda bundle=bundle: bundle.encode(texts, pairs))
        said(lambda bundle=bundle: bundle.encode(["a"], pairs))
        said(lambda bundle=bundle: bundle(texts))
