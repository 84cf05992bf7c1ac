"""What a classifier's outputs say in a person's terms: labels with probabilities, spans of text, scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Answer:
    """A text's class. probability: of the label; probabilities: of all of them, in the model's order."""

    label: str
    probability: float
    probabilities: Mapping[str, float]


@dataclass(frozen=True)
class Span:
    """Characters [start, end) of a text that carry a label. probability: the least of its tokens'."""

    label: str
    probability: float
    start: int
    end: int
    text: str


def classes(logits: np.ndarray, info: Mapping[str, Any]) -> list[Any]:
    """An answer a row.

    Args:
        logits: (texts, labels) floats.
        info: "labels" names them; "problem_type" says whether one of them holds or several may.

    Returns:
        Answers; where several labels may hold, a tuple of those of 50% and more, the likeliest first; where
        there is one column, its number: a score.
    """
    rows = logits.astype(np.float64)
    if rows.shape[1] == 1:
        return [float(row[0]) for row in rows]
    names = _names(info, rows.shape[1])
    if info.get("problem_type") == "multi_label_classification":
        return [_several(names, 1 / (1 + np.exp(-row))) for row in rows]
    return [_one(names, row) for row in _softmax(rows)]


def _one(names: Sequence[str], shares: np.ndarray) -> Answer:
    best = int(shares.argmax())
    known = dict(zip(names, map(float, shares), strict=True))
    return Answer(names[best], float(shares[best]), known)


def _several(names: Sequence[str], shares: np.ndarray) -> tuple[Answer, ...]:
    known = dict(zip(names, map(float, shares), strict=True))
    order = [int(i) for i in np.argsort(-shares, kind="stable") if shares[i] >= 0.5]
    return tuple(Answer(names[i], float(shares[i]), known) for i in order)


def spans(
    logits: np.ndarray, offsets: Sequence[tuple[int, int]], text: str, info: Mapping[str, Any]
) -> list[Span]:
    """The labelled spans of one text: neighbouring tokens of one label, without those labelled O.

    Args:
        logits: (tokens, labels) floats of the text's own tokens, padding left out.
        offsets: where each token lies in the text; (0, 0) for what the tokenizer added.
        info: "labels" names them, in the IOB scheme (Ramshaw and Marcus, 1995) or plainly.
    """
    names = _names(info, logits.shape[1])
    shares = _softmax(logits.astype(np.float64))
    found: list[Span] = []
    open_ = False  # whether the token before belongs to the last span
    for (start, end), row in zip(offsets, shares, strict=True):
        if start == end:
            open_ = False
            continue
        best = int(row.argmax())
        label, begins = names[best], names[best].startswith("B-")
        label = label[2:] if label[:2] in ("B-", "I-") else label
        if label == "O":
            open_ = False
            continue
        share = float(row[best])
        start += len(text[start:end]) - len(text[start:end].lstrip())  # byte-level tokens carry their space
        if open_ and not begins and found[-1].label == label:
            last = found.pop()
            start, share = last.start, min(share, last.probability)
        found.append(Span(label, share, start, end, text[start:end]))
        open_ = True
    return found


def together(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Rows as one array, shorter ones with zeros behind them."""
    longest = tuple(max(sizes) for sizes in zip(*(row.shape for row in rows), strict=True))
    found = np.zeros((len(rows), *longest), rows[0].dtype)
    for place, row in zip(found, rows, strict=True):
        place[tuple(slice(size) for size in row.shape)] = row
    return found


def _softmax(rows: np.ndarray) -> np.ndarray:
    weights = np.exp(rows - rows.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def _names(info: Mapping[str, Any], count: int) -> list[str]:
    """The labels' names, or their numbers where the model doesn't say."""
    names = [str(name) for name in info.get("labels", ())]
    return names if len(names) == count else [str(number) for number in range(count)]
