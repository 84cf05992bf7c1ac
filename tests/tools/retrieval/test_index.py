"""What an index finds is what float64 NumPy finds."""

import sys

import lettered
import numpy as np
import pytest
from graphwright import Index
from graphwright.tools.retrieval import recall as measuring
from graphwright.tools.retrieval import vectors as arithmetic
from graphwright.tools.retrieval.record import KINDS
from hypothesis import given, settings
from hypothesis import strategies as st

ROUNDING = 1e-6  # of cosines of vectors that are kept in float32


def test_float32_finds_what_numpy_finds(indexes, texts, weights):
    index = indexes["float32"]
    vectors = lettered.unit(lettered.vectors(texts, weights))
    queries = lettered.vectors(["a b", "c c d", "k"], weights)
    rows, scores = index.search(queries, 25)
    expected = lettered.unit(queries) @ vectors.T
    np.testing.assert_allclose(scores, -np.sort(-expected, axis=1)[:, :25], atol=ROUNDING)
    np.testing.assert_allclose(np.take_along_axis(expected, rows, 1), scores, atol=ROUNDING)
    assert index.record.recall["value"] == 1.0


@pytest.mark.parametrize("kind", KINDS)
def test_texts_of_one_vector_have_one_score_and_the_order_of_their_rows(indexes, texts, weights, kind):
    rows, scores = indexes[kind].search(lettered.vectors(texts[:3], weights), 10)
    for found, values in zip(rows, scores, strict=True):
        for a, b, x, y in zip(found[:-1], found[1:], values[:-1], values[1:], strict=True):
            same = sorted(texts[a].split()) == sorted(texts[b].split())
            assert x > y or (x == y and a < b)
            assert not same or x == y


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000), rows=st.integers(1, 200), dims=st.integers(1, 40), k=st.integers(1, 30),
    count=st.integers(1, 4), block=st.sampled_from([1, 64, 1 << 20]),
)  # fmt: skip
def test_exact_search_is_float64s_ties_included(seed, rows, dims, k, count, block):
    """Values of few digits make products exact, so that ties are ties; vectors of odd scales round."""
    draw = np.random.default_rng(seed)
    vectors = (draw.integers(-3, 4, (rows, dims)) * 2.0 ** draw.integers(-3, 4)).astype(np.float32)
    vectors[draw.integers(0, rows, rows // 4)] = vectors[0]
    if seed % 2:
        vectors *= draw.uniform(0.1, 10, (rows, 1)).astype(np.float32)
    queries = draw.integers(-3, 4, (count, dims)).astype(np.float32)
    longest = float(np.linalg.norm(vectors.astype(np.float64), axis=1).max())
    expected = queries.astype(np.float64) @ vectors.T.astype(np.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arithmetic, "_SCORES", block)
        candidates = list(arithmetic.whole(vectors, queries, min(k, rows), longest))
    for query, found, scores in zip(queries, candidates, expected, strict=True):
        order = np.lexsort((np.arange(rows), -scores))[:k]
        got, values = arithmetic.ranked(vectors, found, query, k)
        np.testing.assert_allclose(values, scores[order], rtol=1e-12, atol=1e-12)
        if not seed % 2:
            assert got.tolist() == order.tolist()


def test_what_float32_rounds_apart_ties():
    """Orders of the same 24-bit numbers: their sums are one in float64, and many in float32."""
    draw = np.random.default_rng(0)
    numbers = (draw.integers(-(2**23), 2**23, 64) * 2.0**-20).astype(np.float32)
    vectors = np.stack([draw.permutation(numbers) for _ in range(700)])
    longest = float(np.linalg.norm(numbers.astype(np.float64)))
    query = np.ones((1, 64), np.float32)
    assert len(set((query @ vectors.T)[0].tolist())) > 5
    found = next(arithmetic.whole(vectors, query, 5, longest))
    assert arithmetic.ranked(vectors, found, query[0], 5)[0].tolist() == [0, 1, 2, 3, 4]


def test_more_than_there_is_gives_all(bundle, tmp_path, weights):
    for kind in KINDS:
        index = Index.build(bundle, ["a", "b b", "c"], tmp_path / kind, kind)
        rows, scores = index.search(lettered.vectors(["b"], weights), 10)
        assert rows.shape == scores.shape == (1, 3)
        assert rows[0, 0] == 1
        assert sorted(rows[0].tolist()) == [0, 1, 2]


@pytest.mark.parametrize("kind", KINDS)
def test_asking_gives_texts_with_scores(indexes, bundle, texts, kind):
    hits = indexes[kind].ask(bundle, [texts[7], "l"], 3)
    assert [len(each) for each in hits] == [3, 3]
    assert sorted(hits[0][0].text.split()) == sorted(texts[7].split())
    assert hits[0][0].score == pytest.approx(1, abs=ROUNDING)
    assert [hit.text for hit in hits[1]] == [texts[hit.row] for hit in hits[1]]
    assert indexes[kind].ask(bundle, texts[7], 3)[0] == hits[0]


def test_inner_products_keep_lengths(bundle, texts, weights, tmp_path):
    index = Index.build(bundle, texts, tmp_path / "dot", metric="dot")
    query = lettered.vectors(["a b"], weights)
    _, scores = index.search(query, 5)
    assert scores[0].tolist() == sorted((query @ lettered.vectors(texts, weights).T)[0], reverse=True)[:5]


def test_cut_vectors_are_those_of_the_first_dimensions(bundle, texts, weights, tmp_path):
    index = Index.build(bundle, texts, tmp_path / "cut", dims=5)
    vectors = lettered.unit(lettered.vectors(texts, weights)[:, :5])
    np.testing.assert_allclose(index._searcher.vectors, vectors, atol=ROUNDING)
    query = lettered.vectors(["a b"], weights)
    rows, scores = index.search(query, 5)
    np.testing.assert_allclose(
        scores[0], -np.sort(-(vectors @ lettered.unit(query[:, :5])[0]))[:5], atol=ROUNDING
    )
    assert index.search(query[:, :5], 5)[0].tolist() == rows.tolist()
    said = index.record.recall["truncation"]
    assert (said["dims"], said["of"], said["rows"]) == (5, 16, 400)
    full, asking = lettered.unit(lettered.vectors(texts, weights)).astype(np.float32), measuring.sample(400)
    pairs = [measuring.neighbours(each, asking, 1.01) for each in (full, vectors.astype(np.float32))]
    assert said["recall"] == pytest.approx(measuring.shares(*pairs).mean(), abs=0.02)  # ties by rounding
    assert said["recall"] < 0.9
    assert not (index.directory / "full.f32").exists()


def test_an_empty_text_is_a_text(bundle, tmp_path, texts):
    index = Index.build(bundle, ["", *texts[:20], ""], tmp_path / "some")
    assert (index.text(0), index.text(1), index.text(21)) == ("", texts[0], "")
    assert index.ask(bundle, texts[0], 1)[0][0].row == 1


def test_no_queries_find_nothing(indexes):
    for index in indexes.values():
        assert index.search(np.empty((0, 16)), 4)[0].shape == (0, 4)


@pytest.mark.parametrize("kind", KINDS)
def test_an_index_loads_without_what_made_the_model(indexes, bundle, texts, kind):
    """In a fresh process, and before the bundle's runtime is."""
    import subprocess

    code = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'tvm', 'onnx', 'onnxscript', 'pydantic'):\n"
        "    sys.modules[name] = None\n"
        "import graphwright as gw\n"
        f"index = gw.Index({str(indexes[kind].directory)!r})\n"
        f"print(index.ask({str(bundle)!r}, {texts[7]!r})[0][0].score)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    assert float(done.stdout) == pytest.approx(1, abs=ROUNDING)
