"""How well scores rank documents for one query.

Documents of one score have no order between them: a metric is the mean over all orders they could have (nDCG,
recall), or counts them as retrieved at once (average precision). A document that nobody judged is not
relevant, as in TREC.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

Array = np.ndarray


def ndcg(scores: Array, gains: Array, k: int) -> float:
    """Discounted cumulative gain of the first k over that of the best order (Järvelin and Kekäläinen, 2002),
    gains as they are, discounted by log2(rank + 1); over ties the mean (McSherry and Najork, 2008).

    Args:
        scores: (documents,) larger is better.
        gains: (documents,) from 0, one of them above.
    """
    discounts = np.where(np.arange(len(gains)) < k, 1 / np.log2(np.arange(len(gains)) + 2.0), 0)
    order = np.argsort(-scores, kind="stable")
    got = sum(gains[order[a:b]].mean() * discounts[a:b].sum() for a, b in _ties(scores[order]))
    return float(got / (np.sort(gains)[::-1] * discounts).sum())


def average_precision(scores: Array, relevant: Array) -> float:
    """Mean over relevant documents of the precision where each is retrieved (Manning et al., 2008, section
    8.4).

    Args:
        scores: (documents,). relevant: (documents,) bool, one of them at least.
    """
    order = np.argsort(-scores, kind="stable")
    found, total = 0, 0.0
    for start, stop in _ties(scores[order]):
        more = int(relevant[order[start:stop]].sum())
        found += more
        total += more * found / stop
    return total / found


def recall(scores: Array, relevant: Array, k: int) -> float:
    """Share of the relevant documents that is among the first k; over ties the mean.

    Args:
        scores: (documents,). relevant: (documents,) bool, one of them at least.
    """
    order = np.argsort(-scores, kind="stable")
    found = sum(
        relevant[order[a:b]].sum() * min(max(k - a, 0), b - a) / (b - a) for a, b in _ties(scores[order])
    )
    return float(found / relevant.sum())


def _ties(falling: Array) -> Iterator[tuple[int, int]]:
    """[start, stop) of each run of equal scores."""
    ends = [*(np.flatnonzero(falling[1:] != falling[:-1]) + 1), len(falling)]
    return zip([0, *ends[:-1]], ends, strict=True)
