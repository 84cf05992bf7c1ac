"""`optimize towers`: two bundles become the towers of one dual encoder, judged where there is data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ...ir.errors import DataError
from ..judge.columns import Column
from ..judge.data import read
from ..judge.ranking import compared, queries_of, scored, unit
from ..judge.scores import Score
from ..retrieval.towers import Role, Towers


def judged(towers: Towers, path: str, columns: Mapping[str, Column], samples: int, seed: int) -> Score:
    """nDCG@10 of retrieval: queries through one tower, documents through the other.

    Raises:
        DataError: the file can't be read, or has nothing to judge on.
    """
    data = read(path, "embedding", "retrieval", columns, samples, seed)
    queries = queries_of(data)

    def embed(texts: Sequence[str], role: Role) -> list[np.ndarray]:
        return [unit(row[None]) for row in towers.embed(texts, role)]

    found = scored(queries, compared(data, queries, embed))
    if found.nothing:
        raise DataError(f"{path}: the model {found.nothing}")
    return found


def lines(towers: Towers, score: Score | None) -> list[str]:
    """What was written, and how good it is."""
    said = [f"{towers.directory}: a query and a document tower"]
    if score is not None:
        beside = ", ".join(f"{name} {value:.2f}" for name, value in score.details.items())
        said.append(f"{score.metric} {score.value:.2f}, {beside}")
    return said
