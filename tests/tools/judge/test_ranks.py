"""Metrics of a ranking: what scikit-learn computes, or a person by hand."""

from itertools import permutations

import numpy as np
import pytest
from graphwright.tools.judge.ranks import average_precision, ndcg, recall
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, ndcg_score

EXACT = 1e-12


@st.composite
def rankings(draw, most=30):
    """(scores, gains): of few values, so that many tie."""
    count = draw(st.integers(2, most))
    random = np.random.default_rng(draw(st.integers(0, 10_000)))
    values = draw(st.sampled_from([2, 5, 1000]))
    return random.integers(-values, values, count) / 7, random.integers(0, 4, count).astype(float)


@given(rankings(), st.integers(1, 12))
def test_ndcg_is_scikit_learns(ranking, k):
    scores, gains = ranking
    assume(gains.any())
    assert ndcg(scores, gains, k) == pytest.approx(ndcg_score([gains], [scores], k=k), abs=EXACT)


@given(rankings())
def test_average_precision_is_scikit_learns(ranking):
    scores, gains = ranking
    assume(gains.any())
    expected = average_precision_score(gains > 0, scores)
    assert average_precision(scores, gains > 0) == pytest.approx(expected, abs=EXACT)


@given(rankings(most=6), st.integers(1, 7))
def test_recall_is_the_mean_over_orders_of_what_ties(ranking, k):
    scores, gains = ranking
    relevant = gains > 0
    assume(relevant.any())
    orders = [order for order in permutations(range(len(scores))) if all(np.diff(scores[list(order)]) <= 0)]
    shares = [relevant[list(order[:k])].sum() / relevant.sum() for order in orders]
    assert recall(scores, relevant, k) == pytest.approx(np.mean(shares), abs=EXACT)


def test_by_hand():
    scores, gains = np.array([0.9, 0.8, 0.7, 0.6]), np.array([0, 2.0, 0, 1.0])
    best = 2 / np.log2(2) + 1 / np.log2(3)
    assert ndcg(scores, gains, 10) == pytest.approx((2 / np.log2(3) + 1 / np.log2(5)) / best, abs=EXACT)
    assert ndcg(scores, gains, 2) == pytest.approx((2 / np.log2(3)) / best, abs=EXACT)
    assert average_precision(scores, gains > 0) == pytest.approx((1 / 2 + 2 / 4) / 2, abs=EXACT)
    assert [recall(scores, gains > 0, k) for k in (1, 2, 3, 4, 9)] == [0, 0.5, 0.5, 1, 1]
