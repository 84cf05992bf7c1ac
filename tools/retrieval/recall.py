"""How much of what exact search finds an index finds, and the least effort that finds enough."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .asking import held, sample
from .search import Searcher
from .vectors import ranked, whole

AT = 10
SURE = 1.64  # one in twenty means of as many rows is below its own by more
EFFORTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
GOALS: Mapping[str, float] = {"float32": 1.0, "int8": 0.99, "binary": 0.95, "hnsw": 0.95}


def neighbours(vectors: np.ndarray, asking: np.ndarray, longest: float) -> list[np.ndarray]:
    """For some rows the AT rows nearest to each, itself left out: exact search.

    Args:
        vectors: (rows, dims) float32, as an index keeps them.
    """
    found = whole(vectors, vectors[asking], AT + 1, longest)
    return [
        _without(ranked(vectors, rows, vectors[row], AT + 1)[0], row)
        for row, rows in zip(asking, found, strict=True)
    ]


def measured(searcher: Searcher, goal: float) -> tuple[int, dict[str, Any]]:
    """The least of EFFORTS that surely reaches a goal, the greatest where none does, and what was measured.

    recall@10: the share of the 10 nearest rows by exact search that is among the 10 found, a mean over rows
    of the index that ask, each without itself. Few rows ask, and a graph finds most of them all and some
    none: a goal counts as reached where the mean is above it by SURE standard errors.

    Args:
        searcher: of the index; its vectors say what is exact.
        goal: from 0 to 1.
    """
    vectors, longest = searcher.vectors, searcher.record.longest
    asking = held(searcher.record) if searcher.record.kind == "hnsw" else sample(len(vectors))
    wanted = neighbours(vectors, asking, longest)
    by_effort: dict[str, float] = {}
    effort, error = 1, 0.0
    for effort in (1,) if searcher.record.kind == "float32" else EFFORTS:
        # What a question has that wants AT; among codes a row has itself besides, always.
        candidates = min(AT * effort + (searcher.record.kind != "hnsw"), len(vectors))
        best = searcher.best(vectors[asking], candidates, AT + 1)
        got = [_without(found, row) for (found, _), row in zip(best, asking, strict=True)]
        found_of = shares(wanted, got)
        by_effort[str(effort)] = value = float(found_of.mean())
        error = float(found_of.std() / np.sqrt(len(found_of)))
        if value - SURE * error >= goal or candidates == len(vectors):
            break
    said = {
        "metric": f"recall@{AT}",
        "value": by_effort[str(effort)],
        "error": error,
        "goal": goal,
        "queries": len(asking),
        "rows": len(vectors),
        "by_effort": by_effort,
    }
    return effort, said


def shares(wanted: list[np.ndarray], found: list[np.ndarray]) -> np.ndarray:
    """Of each list the share of the wanted rows that was found; a 1 where there is nothing to find."""
    return np.array([np.isin(a, b).mean() for a, b in zip(wanted, found, strict=True) if len(a)] or [1.0])


def _without(rows: np.ndarray, row: int) -> np.ndarray:
    return rows[rows != row][:AT]
