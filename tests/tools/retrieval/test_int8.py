"""int8 codes and their products: the integers that NumPy computes."""

import numpy as np
from graphwright.tools.retrieval import int8 as module
from graphwright.tools.retrieval.int8 import Int8
from hypothesis import given
from hypothesis import strategies as st


def drawn(seed, rows, dims):
    return np.random.default_rng(seed).standard_normal((rows, dims)).astype(np.float32)


def scanned(coder, codes, queries, threads=1):
    found = [scores for _, scores in coder.scan(codes, queries, threads)]
    return np.concatenate(found, axis=1)


@given(seed=st.integers(0, 1000), rows=st.integers(1, 70), dims=st.integers(1, 130), count=st.integers(1, 9))
def test_scores_are_sums_of_products_of_codes(seed, rows, dims, count):
    vectors, queries = drawn(seed, rows, dims), drawn(seed + 1, count, dims)
    coder = Int8.fit(iter([vectors]))
    codes = coder.encode(vectors).view(np.int8).astype(np.int64)
    assert np.abs(codes).max(axis=0).tolist() == [127] * dims
    np.testing.assert_allclose(codes * coder.book, vectors, atol=coder.book.max() * 0.501)
    scaled = queries * coder.book
    asked = np.rint(scaled * (127 / np.abs(scaled).max(axis=1, keepdims=True))).astype(np.int64)
    assert (scanned(coder, coder.encode(vectors), queries) == asked @ codes.T).all()


def test_blocks_follow_each_other(monkeypatch):
    vectors, queries = drawn(0, 500, 24), drawn(1, 3, 24)
    coder = Int8.fit(iter([vectors]))
    codes = coder.encode(vectors)
    at_once = scanned(coder, codes, queries)
    monkeypatch.setattr(module, "_SCORES", 300)
    assert [first for first, _ in coder.scan(codes, queries)] == list(range(0, 500, 100))
    for threads in (1, 2, 5):
        assert (scanned(coder, codes, queries, threads) == at_once).all()


def test_the_nearest_are_those_of_the_largest_scores(monkeypatch):
    monkeypatch.setattr(module, "_BATCH", 2)
    vectors, queries = drawn(0, 300, 24), drawn(1, 5, 24)
    coder = Int8.fit(iter([vectors]))
    codes = coder.encode(vectors)
    found = list(coder.nearest(codes, queries, 7, threads=2))
    for rows, scores in zip(found, scanned(coder, codes, queries), strict=True):
        assert rows.tolist() == sorted(np.lexsort((np.arange(300), -scores))[:7].tolist())


def test_what_an_older_scale_has_no_range_for_is_clipped():
    coder = Int8.fit(iter([np.array([[1.0, 0.0]], np.float32)]))
    assert coder.encode(np.array([[-3.0, 0.5]], np.float32)).view(np.int8).tolist() == [[-127, 0]]


def test_a_query_of_zeros_finds_all_alike():
    coder = Int8.fit(iter([drawn(0, 5, 8)]))
    assert scanned(coder, coder.encode(drawn(0, 5, 8)), np.zeros((1, 8), np.float32)).tolist() == [[0] * 5]
