"""Judges of models that rank documents for queries: by one vector a text, by one a token, or pair by pair."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from ...backends.running.prompts import Role
from ...ir.errors import DataError
from ...ir.spec import InputSpec
from .data import Data, Row
from .encoded import Encoder, batches
from .metrics import varies
from .ranks import average_precision, ndcg, recall
from .records import place
from .scores import Runner, Score, class_scores

AT = 10
_TOGETHER = 256  # documents compared at once


@dataclass(frozen=True)
class Ranking:
    """nDCG@10 of the order in which a model puts documents for queries, with recall@10 and MAP beside it.

    The task "retrieval" ranks all documents of the data for each query, by cosine, or by MaxSim where the
    model gives vectors to tokens alone; "rerank" ranks a query's own rows, by the score that a model of pairs
    gives them, else in the same ways. prompts: put in front of queries and documents that are read by
    themselves. Labels are gains, 1 where the data has none. Queries that can't tell
    (nothing relevant, or nothing else) are left out. What a model gives no number ranks last.
    """

    data: Data
    encoder: Encoder
    mask: InputSpec | None
    paired: bool
    prompts: Mapping[Role, str]
    queries: Sequence[Query] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "queries", queries_of(self.data))

    def __call__(self, run: Runner) -> Score:
        if self.paired:
            return scored(self.queries, self._paired(run))
        return scored(self.queries, compared(self.data, self.queries, partial(self._vectors, run)))

    def _paired(self, run: Runner) -> list[np.ndarray]:
        rows = [
            Row(0, query.text, self.data.documents[number])
            for query in self.queries
            for number in query.documents
        ]
        found = np.empty(len(rows))
        for chosen, feed in batches(rows, self.encoder):
            scores = class_scores(run(feed))
            if scores.shape[-1] != 1:
                count = scores.shape[-1]
                raise DataError(
                    f"{self.data.path}: ranking needs one score a pair, not the {count} of this model"
                )
            found[chosen] = scores[:, 0]
        return np.split(found, np.cumsum([len(query.documents) for query in self.queries])[:-1])

    def _vectors(self, run: Runner, texts: Sequence[str], role: Role) -> list[np.ndarray]:
        """(vectors, size) of length 1 for each text: one of the text, or one a token."""
        prompt = self.prompts[role]
        found: dict[int, np.ndarray] = {}
        for chosen, feed in batches([Row(0, prompt + text) for text in texts], self.encoder):
            kept = self.mask.kept(feed[self.mask.name]) if self.mask else None
            found.update(zip(chosen, vectors(run(feed), kept), strict=True))
        return [found[number] for number in range(len(texts))]


@dataclass(frozen=True)
class Query:
    """text, the numbers of the documents to rank for it, and what each is worth."""

    text: str
    documents: np.ndarray
    gains: np.ndarray


def compared(
    data: Data, queries: Sequence[Query], embed: Callable[[Sequence[str], Role], list[np.ndarray]]
) -> list[np.ndarray]:
    """For each query the scores of its documents, by `maxsim` of what `embed` makes of texts."""
    asked = embed([query.text for query in queries], "query")
    known = sorted({int(number) for query in queries for number in query.documents})
    scores = maxsim(asked, embed([data.documents[number] for number in known], "document"))
    places = (np.searchsorted(known, query.documents) for query in queries)
    return [row[place] for row, place in zip(scores, places, strict=True)]


def scored(queries: Sequence[Query], scores: Sequence[np.ndarray]) -> Score:
    """nDCG, with recall and MAP beside it: means over queries, of the scores of each one's documents."""
    scores = [np.where(np.isnan(each), -np.inf, each) for each in scores]
    rows = [
        (ndcg(each, query.gains, AT), recall(each, query.gains > 0, AT),
         average_precision(each, query.gains > 0))
        for query, each in zip(queries, scores, strict=True)
    ]  # fmt: skip
    values = 100 * np.mean(rows, axis=0)
    nothing = "" if any(map(varies, scores)) else "gives every document the same score, or none"
    details = {f"recall@{AT}": float(values[1]), "MAP": float(values[2])}
    return Score(f"nDCG@{AT}", float(values[0]), details=details, nothing=nothing)


def vectors(outputs: Any, kept: np.ndarray | None) -> list[np.ndarray]:
    """What stands for each text, (vectors, size) of length 1: its embedding, or its tokens' vectors where the
    model has no other (Khattab and Zaharia, 2020, arXiv 2004.12832).

    Args:
        kept: (texts, tokens) bool, the tokens that are the text's own.

    Raises:
        DataError: the model gives neither.
    """
    names = ("sentence_embedding", *outputs)
    pooled = [outputs[name] for name in names if name in outputs and outputs[name].ndim == 2]
    if pooled:
        return [unit(row[None]) for row in pooled[0]]
    states = [array for array in outputs.values() if array.ndim == 3]
    if not states:
        raise DataError(
            "ranking documents needs an embedding, or vectors of tokens, and the model gives none"
        )
    real = np.ones(states[0].shape[:2], bool) if kept is None else kept.astype(bool)
    return [unit(row[use] if use.any() else 0 * row[:1]) for row, use in zip(states[0], real, strict=True)]


def maxsim(queries: Sequence[np.ndarray], documents: Sequence[np.ndarray]) -> np.ndarray:
    """(queries, documents): for each vector of a query the largest product with one of the document, summed
    (Khattab and Zaharia, 2020, equation 3). Of one vector each, their product. Differences below 1e-9, which
    are those of another order of sums, are none.

    Args:
        queries, documents: (vectors, size) each, one vector at least.
    """
    found = np.empty((len(queries), len(documents)))
    for start in range(0, len(documents), _TOGETHER):
        block = documents[start : start + _TOGETHER]
        tokens = np.concatenate(block).T
        begins = np.cumsum([0, *(len(each) for each in block[:-1])])
        for row, query in zip(found, queries, strict=True):
            nearest = np.maximum.reduceat(query @ tokens, begins, axis=1)
            row[start : start + len(block)] = nearest.sum(axis=0)
    return np.round(found, 9)


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows of length 1 in float64; zeros stay zeros."""
    wide = rows.astype(np.float64)
    norms = np.linalg.norm(wide, axis=1, keepdims=True)
    return wide / np.where(norms > 0, norms, 1)


def queries_of(data: Data) -> list[Query]:
    """The queries of the data that can tell one ranking from another.

    Raises:
        DataError: there is none, or a label is below 0.
    """
    numbers = {text: number for number, text in enumerate(data.documents)}
    gains: dict[str, dict[int, float]] = {}
    for row in data.rows:
        gain = 1.0 if row.label is None else float(row.label)
        if gain < 0:
            raise DataError(f"{place(data.path, row.line)}: {row.label!r} is below 0, which no relevance is")
        judged = gains.setdefault(str(row.text), {})
        number = numbers[row.pair or ""]
        judged[number] = max(gain, judged.get(number, 0.0))
    found = []
    for text, judged in gains.items():
        every = range(len(data.documents)) if data.task == "retrieval" else judged
        documents = np.array(sorted(every))
        worth = np.array([judged.get(int(number), 0.0) for number in documents])
        if 0 < (worth > 0).sum() < len(worth):
            found.append(Query(text, documents, worth))
    if not found:
        raise DataError(
            f"{data.path}: no query has both a relevant document and another, so there is nothing to judge on"
        )
    return found
