"""Codes and what they are compared by: the integers that NumPy computes."""

import multiprocessing
import os

import numpy as np
import pytest
from graphwright.tools.retrieval import codes as module
from graphwright.tools.retrieval.codes import Binary, Int8
from hypothesis import given
from hypothesis import strategies as st


def drawn(seed, rows, dims):
    return np.random.default_rng(seed).standard_normal((rows, dims)).astype(np.float32)


def scanned(coder, codes, queries, threads=1):
    found = [scores for _, scores in coder.scan(codes, queries, threads)]
    return np.concatenate(found, axis=1)


@given(seed=st.integers(0, 1000), rows=st.integers(1, 70), dims=st.integers(1, 130), count=st.integers(1, 9))
def test_int8_scores_are_sums_of_products_of_codes(seed, rows, dims, count):
    vectors, queries = drawn(seed, rows, dims), drawn(seed + 1, count, dims)
    coder = Int8.fit(iter([vectors]))
    codes = coder.encode(vectors).view(np.int8).astype(np.int64)
    assert np.abs(codes).max(axis=0).tolist() == [127] * dims
    np.testing.assert_allclose(codes * coder.book, vectors, atol=coder.book.max() * 0.501)
    scaled = queries * coder.book
    asked = np.rint(scaled * (127 / np.abs(scaled).max(axis=1, keepdims=True))).astype(np.int64)
    assert (scanned(coder, coder.encode(vectors), queries) == asked @ codes.T).all()


@given(seed=st.integers(0, 1000), rows=st.integers(1, 70), dims=st.integers(1, 130), count=st.integers(1, 9))
def test_binary_scores_are_minus_the_bits_that_differ(seed, rows, dims, count):
    vectors, queries = drawn(seed, rows, dims), drawn(seed + 1, count, dims)
    coder = Binary.fit(iter([vectors[: rows // 2], vectors[rows // 2 :]]))
    np.testing.assert_allclose(coder.book, vectors.astype(np.float64).mean(0), atol=1e-6)
    differ = (queries > coder.book)[:, None] != (vectors > coder.book)[None]
    assert (scanned(coder, coder.encode(vectors), queries) == -differ.sum(-1)).all()


@pytest.mark.parametrize("coder", [Int8, Binary])
def test_blocks_follow_each_other(monkeypatch, coder):
    vectors, queries = drawn(0, 500, 24), drawn(1, 3, 24)
    fitted = coder.fit(iter([vectors]))
    codes = fitted.encode(vectors)
    at_once = scanned(fitted, codes, queries)
    monkeypatch.setattr(module, "_SCORES", 300)
    monkeypatch.setattr(module, "_PACKED", 96)
    again = coder(fitted.book)
    starts = [first for first, _ in again.scan(codes, queries)]
    assert starts == list(range(0, 500, 100 if coder is Int8 else 96))
    for threads in (1, 2, 5):
        assert (scanned(again, codes, queries, threads) == at_once).all()


def test_what_an_older_scale_has_no_range_for_is_clipped():
    coder = Int8.fit(iter([np.array([[1.0, 0.0]], np.float32)]))
    assert coder.encode(np.array([[-3.0, 0.5]], np.float32)).view(np.int8).tolist() == [[-127, 0]]


def test_a_query_of_zeros_finds_all_alike():
    coder = Int8.fit(iter([drawn(0, 5, 8)]))
    assert scanned(coder, coder.encode(drawn(0, 5, 8)), np.zeros((1, 8), np.float32)).tolist() == [[0] * 5]


def test_a_forked_process_has_threads_of_its_own(monkeypatch):
    monkeypatch.setattr(module, "_PACKED", 96)
    vectors, queries = drawn(0, 500, 24), drawn(1, 3, 24)
    coder = Binary.fit(iter([vectors]))
    codes = coder.encode(vectors)
    expected = scanned(coder, codes, queries, threads=2)

    def child():
        os._exit(0 if (scanned(coder, codes, queries, threads=2) == expected).all() else 1)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(60)
    assert process.exitcode == 0
