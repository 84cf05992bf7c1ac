"""What no index can be built of, or asked: a sentence each."""

import shutil
import sys

import lettered
import numpy as np
import pytest
from graphwright import BackendError, BundleError, ConfigError, Index, InputError
from graphwright.tools.retrieval import write as writing


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"kind": "int4"}, "of the kind float32, int8, binary, hnsw .* not 'int4'"),
        ({"metric": "l2"}, "not 'float32' and 'l2'"),
        ({"dims": 17}, "have 16 dimensions; keep 1 to 16 of them, not 17"),
        ({"dims": 0}, "not 0"),
        ({"recall": 1.5}, "recall is a number from 0 to 1"),
        ({"recall": float("nan")}, "recall is a number from 0 to 1"),
    ],
)
def test_what_can_not_be_built_is_refused(bundle, tmp_path, options, sentence):
    with pytest.raises(ConfigError, match=sentence):
        Index.build(bundle, ["a"], tmp_path / "index", **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [
        ([], "there are no texts to index"),
        ("one text", "a list of texts, not of 'one text'"),
        (["a", 5], r"texts\[1\] is a int"),
        (None, "a list of texts, not of None"),
        (["\ud800"], "half of a character"),
    ],
)
def test_what_is_no_text_is_refused(bundle, tmp_path, texts, sentence):
    with pytest.raises(InputError, match=sentence):
        Index.build(bundle, texts, tmp_path / "index")
    assert list(tmp_path.iterdir()) == []


def test_a_text_far_behind_is_called_by_its_place(bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "_TOGETHER", 4)
    with pytest.raises(InputError, match=r"texts\[4:\]\[1\] is a int"):
        Index.build(bundle, [*"abcde", 5], tmp_path / "index")


def test_vectors_that_are_no_numbers_are_refused(weights, tmp_path):
    broken = weights.copy()
    broken[2 + lettered.LETTERS.index("c")] = np.nan
    bundle = lettered.bundle(tmp_path / "broken", broken)
    with pytest.raises(InputError, match=r"the vector of texts\[2\] holds NaN"):
        Index.build(bundle, list("abc"), tmp_path / "index")
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize(("kind", "package"), [("int8", "numkong"), ("hnsw", "usearch")])
def test_a_package_that_is_missing_is_named(indexes, bundle, tmp_path, monkeypatch, kind, package):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setitem(sys.modules, f"{package}.index", None)
    for make in (
        lambda: Index.build(bundle, ["a"], tmp_path / "index", kind),
        lambda: Index(indexes[kind].directory),
    ):
        with pytest.raises(BackendError, match=rf"{package}: pip install graphwright\[retrieval\]"):
            make()
    assert len(Index(indexes["float32"].directory)) == 400
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize(
    ("queries", "k", "sentence"),
    [
        (np.ones((1, 7)), 3, r"rows of 16 numbers, not float64 \[1, 7\]"),
        (np.ones(16), 3, r"not float64 \[16\]"),
        (np.full((2, 16), np.nan), 3, r"queries\[0\] holds NaN"),
        (np.full((1, 16), 1e200), 3, "too large"),
        ([["a"] * 16], 3, "rows of 16 numbers"),
        (np.ones((1, 16)), 0, "k is a whole number from 1, not 0"),
        (np.ones((1, 16)), 2.0, "k is a whole number"),
    ],
)
def test_questions_that_do_not_fit_are_refused(indexes, queries, k, sentence):
    with pytest.raises(InputError, match=sentence):
        indexes["int8"].search(queries, k)


def test_another_bundle_is_refused_and_a_copy_is_not(indexes, bundle, other, tmp_path):
    with pytest.raises(BundleError, match=r"vectors of another model than .*other"):
        indexes["float32"].ask(other, "a")
    copy = shutil.copytree(bundle, tmp_path / "copy")
    assert indexes["float32"].ask(copy, "a") == indexes["float32"].ask(bundle, "a")


def test_only_sentence_encoders_make_indexes(tmp_path, weights):
    tokens = lettered.bundle(
        tmp_path / "tokens", weights, body="states = Gather (table, input_ids)",
        output="float[batch,length,16] states",
    )  # fmt: skip
    with pytest.raises(InputError, match=r"gives a text states of shape \[1, 16\].* pools its tokens"):
        Index.build(tokens, ["a"], tmp_path / "index")
    labels = lettered.bundle(tmp_path / "labels", weights, task="sequence-classification")
    with pytest.raises(BundleError, match="its task is sequence-classification"):
        Index.build(labels, ["a"], tmp_path / "index")
