"""The best rows out of blocks of scores are those that a full sort finds."""

import numpy as np
import pytest
from graphwright.tools.retrieval import best as module
from graphwright.tools.retrieval.best import Best
from hypothesis import given
from hypothesis import strategies as st


def sorted_rows(scores, wanted):
    """By score, then by the lower row; in ascending order of rows."""
    order = np.lexsort((np.arange(scores.shape[1])[None].repeat(len(scores), 0), -scores.astype(np.float64)))
    return [np.sort(row[:wanted]) for row in order]


@given(
    seed=st.integers(0, 10_000),
    queries=st.integers(1, 5),
    rows=st.integers(1, 300),
    wanted=st.integers(1, 40),
    step=st.integers(1, 120),
    values=st.sampled_from([2, 7, 1000]),
    by_row=st.booleans(),
    dtype=st.sampled_from([np.int32, np.float32]),
)
def test_they_are_those_of_a_full_sort(seed, queries, rows, wanted, step, values, by_row, dtype):
    scores = np.random.default_rng(seed).integers(-values, values, (queries, rows)).astype(dtype)
    best = Best(queries, wanted)
    for first in range(0, rows, step):
        block = scores[:, first : first + step]
        best.add(np.asfortranarray(block) if by_row else np.ascontiguousarray(block), first)
    for found, expected in zip(best.rows(), sorted_rows(scores, wanted), strict=True):
        assert found.tolist() == expected.tolist()


@pytest.mark.parametrize("by_row", [False, True])
def test_scores_that_rise_all_the_way_keep_no_more_than_a_few(monkeypatch, by_row):
    monkeypatch.setattr(module, "_SAMPLE", 8)
    scores = np.arange(40_000, dtype=np.int32)[None].repeat(2, 0)
    best, most = Best(2, 5), 0
    for first in range(0, 40_000, 100):
        block = scores[:, first : first + 100]
        best.add(np.asfortranarray(block) if by_row else block.copy(), first)
        most = max(most, best._count)
    assert [rows.tolist() for rows in best.rows()] == [list(range(39_995, 40_000))] * 2
    assert most <= 64 * 2 * 5 + 200


def test_within_the_slack_a_row_is_kept():
    scores = np.array([[5, 4.9, 4.7, 5, 1]], np.float32)
    best = Best(1, 2, np.array([0.2]))
    best.add(scores, 10)
    assert best.rows()[0].tolist() == [10, 11, 13]
    both = Best(1, 2, np.array([0.4]))
    both.add(scores[:, :2], 10)
    both.add(scores[:, 2:], 12)
    assert both.rows()[0].tolist() == [10, 11, 12, 13]
