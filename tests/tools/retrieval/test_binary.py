"""Codes of one bit a dimension: those with the fewest bits that differ, as NumPy counts them bit by bit."""

import numpy as np
import pytest
from graphwright.tools.retrieval import binary as module
from graphwright.tools.retrieval.binary import Binary
from hypothesis import given
from hypothesis import strategies as st


def drawn(seed, rows, dims):
    return np.random.default_rng(seed).standard_normal((rows, dims)).astype(np.float32)


def differing(coder, vectors, queries):
    """(queries, rows, dims) of bool."""
    return (queries > coder.book)[:, None] != (vectors > coder.book)[None]


def fewest(bits, wanted):
    """(rows, dims) of one query: the numbers of the rows with the fewest, of equal ones the lower."""
    return sorted(np.lexsort((np.arange(len(bits)), bits.sum(-1)))[:wanted].tolist())


@given(
    seed=st.integers(0, 1000), rows=st.integers(1, 70), dims=st.integers(1, 300), count=st.integers(1, 5),
    wanted=st.integers(1, 20),
)  # fmt: skip
def test_among_few_rows_the_nearest_are_those_with_the_fewest_bits(seed, rows, dims, count, wanted):
    vectors, queries = drawn(seed, rows, dims), drawn(seed + 1, count, dims)
    coder = Binary.fit(iter([vectors[: rows // 2], vectors[rows // 2 :]]))
    np.testing.assert_allclose(coder.book, vectors.astype(np.float64).mean(0), atol=1e-6)
    found = list(coder.nearest(coder.encode(vectors), queries, wanted))
    for got, bits in zip(found, differing(coder, vectors, queries), strict=True):
        assert got.tolist() == fewest(bits, wanted)


@pytest.mark.parametrize("dims", [40, 128, 200])
def test_among_many_they_are_sought_by_the_first_bits(monkeypatch, dims):
    monkeypatch.setattr(module, "_SAMPLE", 100)
    monkeypatch.setattr(module, "_FEWEST", 0)
    vectors, queries = drawn(0, 1003, dims), drawn(1, 6, dims)
    coder = Binary.fit(iter([vectors]))
    codes = coder.encode(vectors)
    expected = []
    for bits in differing(coder, vectors, queries):
        head = bits[:, :128].sum(-1)
        bound = np.sort(head[::10])[8 * 5 * 101 // 1003]
        near = np.flatnonzero(head <= bound)
        expected.append([int(near[number]) for number in fewest(bits[near], 5)])
    assert [rows.tolist() for rows in coder.nearest(codes, queries, 5)] == expected
    monkeypatch.setattr(module, "_ROWS", 96)
    for threads in (1, 2, 5):
        assert [rows.tolist() for rows in coder.nearest(codes, queries, 5, threads)] == expected


def test_a_sample_nearer_than_the_rest_is_not_believed(monkeypatch):
    monkeypatch.setattr(module, "_SAMPLE", 10)
    monkeypatch.setattr(module, "_FEWEST", 0)
    vectors = drawn(0, 100, 64)
    vectors[::10] = 1
    coder = Binary(np.zeros(64, np.float32))
    query = np.ones((1, 64), np.float32)
    found = next(coder.nearest(coder.encode(vectors), query, 30))
    assert found.tolist() == fewest(differing(coder, vectors, query)[0], 30)
