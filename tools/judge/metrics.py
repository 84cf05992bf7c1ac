"""The arithmetic of quality: plain functions over arrays, in float64."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Array = np.ndarray
ROUNDING = 1e-5  # of the largest value; differences below it are those of another order of sums


def log_softmax(logits: Array) -> Array:
    """Over the last axis."""
    shifted = logits.astype(np.float64)
    shifted = shifted - shifted.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def divergence(reference: Array, candidate: Array) -> Array:
    """KL(reference || candidate) in nats of the distributions that two logit arrays stand for, row by row."""
    p, q = log_softmax(reference), log_softmax(candidate)
    with np.errstate(invalid="ignore"):
        return np.where(np.isneginf(p), 0, np.exp(p) * (p - q)).sum(axis=-1)


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    """Rank correlation; 0 where one side is constant and has no ranks."""
    from scipy.stats import spearmanr

    if len(set(a)) < 2 or len(set(b)) < 2:
        return 0.0
    return float(spearmanr(a, b).statistic)


def rank_correlation(expected: Array, found: Array) -> float:
    """Spearman's over the rows that have a number on both sides, times their share of the rows that have one
    in `expected`: a row without one is a row not found. 0 where nothing is left."""
    told = np.isfinite(expected)
    use = told & np.isfinite(found)
    if not use.any():
        return 0.0
    return spearman(expected[use].tolist(), found[use].tolist()) * float(use.sum() / told.sum())


def relative_error(expected: Array, found: Array) -> float:
    """Root mean square of the difference over the standard deviation of what was expected."""
    return float(np.sqrt(np.mean((found - expected) ** 2)) / np.std(expected))


def varies(values: Array) -> bool:
    """Whether finite numbers differ by more than rounding."""
    values = values[np.isfinite(values)]
    return bool(values.size and np.ptp(values) > ROUNDING * np.abs(values).max())


def spans(tags: Sequence[str]) -> set[tuple[int, int, str]]:
    """(start, end, type) of every entity in a BIO sequence, as CoNLL-2000's conlleval reads it: an I- that
    follows nothing of its type begins an entity too."""
    found, start, kind = set(), 0, ""
    for place, tag in enumerate([*tags, "O"]):
        prefix, _, name = tag.partition("-")
        if kind and (prefix != "I" or name != kind):
            found.add((start, place, kind))
            kind = ""
        if prefix in {"B", "I"} and not kind:
            start, kind = place, name
    return found


def f1(wanted: Sequence[set], found: Sequence[set]) -> float:
    """Micro-averaged over the sets of each example; 1 when there was nothing to find and nothing found."""
    right = sum(len(a & b) for a, b in zip(wanted, found, strict=True))
    total = sum(map(len, wanted)) + sum(map(len, found))
    return 2 * right / total if total else 1.0
