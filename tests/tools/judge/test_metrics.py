"""The arithmetic of quality against formulas written out, and against scipy where it has one."""

import numpy as np
import pytest
from graphwright.tools.judge import metrics
from scipy.special import log_softmax, rel_entr, softmax


def test_divergence_is_scipys_and_takes_large_logits():
    rng = np.random.default_rng(0)
    p, q = rng.standard_normal((2, 5, 7)) * 3
    expected = rel_entr(softmax(p, -1), softmax(q, -1)).sum(-1)
    assert metrics.divergence(p, q) == pytest.approx(expected, abs=1e-12)
    assert metrics.divergence(p + 1e4, q - 1e4) == pytest.approx(expected, abs=1e-9)
    assert metrics.log_softmax(p) == pytest.approx(log_softmax(p, -1), abs=1e-12)


def test_spearman_sees_ranks_only_and_survives_a_constant():
    assert metrics.spearman([1, 2, 3, 4], [1, 8, 27, 64]) == pytest.approx(1.0)
    # One swap of neighbours among four: 1 - 6 * 2 / (4 * 15).
    assert metrics.spearman([1, 2, 3, 4], [2, 1, 3, 4]) == pytest.approx(0.8)
    assert metrics.spearman([1, 1, 1], [1, 2, 3]) == 0.0


def test_spans_are_conlls():
    tags = ["B-PER", "I-PER", "O", "I-LOC", "B-LOC", "I-ORG", "I-ORG"]
    assert metrics.spans(tags) == {(0, 2, "PER"), (3, 4, "LOC"), (4, 5, "LOC"), (5, 7, "ORG")}
    assert metrics.spans(["O", "O"]) == set()


def test_f1_is_micro_averaged():
    wanted = [{(0, 1, "A"), (2, 3, "B")}, {(0, 1, "A")}]
    found = [{(0, 1, "A")}, {(0, 2, "A"), (0, 1, "A")}]
    assert metrics.f1(wanted, found) == pytest.approx(2 * 2 / 6)
    assert metrics.f1([set()], [set()]) == 1.0
