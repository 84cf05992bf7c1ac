"""An index of texts: a bundle's vectors on disk, searched whole, by codes or by a graph."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...backends.running.runner import Bundle
from ...backends.target import allowed_cpus, check_threads
from ...ir.errors import BundleError, InputError, short
from ...ir.host.files import path_of
from ...ir.inputs.texts import listed
from . import deleting, store, write
from .model import Model
from .recall import GOALS
from .record import read_record
from .search import Searcher
from .towers import Towers, opened


@dataclass(frozen=True)
class Hit:
    """A text that was found. row: its number in the index, from 0. score: cosine, or inner product."""

    row: int
    score: float
    text: str


class Index:
    """An index that `build` or `optimize index` wrote, ready to search. Safe to call from several threads.

    Its files are mapped: a search reads what it looks at. What another process appends is seen by opening it
    again.

    Args:
        directory: of the index.
        threads: of a scan of codes, or a search in a graph; all that this process may use by default. Exact
            products take those of NumPy's BLAS.
        verify: compare every file with its hash (reads each file once).

    Raises:
        BundleError: no index, an incomplete one, one that was tampered with, or one of a newer format.
        BackendError: what searches it is not installed.
    """

    def __init__(self, directory: str | Path, threads: int | None = None, verify: bool = True) -> None:
        self.directory = _path(directory)
        if threads is not None:
            check_threads(threads)
        self.threads = threads or len(allowed_cpus())
        self._open(verify)

    def _open(self, verify: bool) -> None:
        self.record = read_record(self.directory)
        store.verify(self.directory, self.record, hashes=verify)
        self._texts = store.Texts(self.directory, self.record)
        self._searcher = Searcher(self.directory, self.record, self.threads)

    @classmethod
    def build(
        cls,
        bundle: str | Path | Bundle | Towers,
        texts: Iterable[str],
        out: str | Path,
        kind: str = "float32",
        *,
        dims: int | None = None,
        metric: str = "cosine",
        recall: float | None = None,
        force: bool = False,
    ) -> Index:
        """Embed texts and write an index, which appears under its name when it is complete.

        Args:
            bundle: a sentence encoder, or two towers, of which "document" reads the texts. Prompts that the
                model has for documents or queries are put in front of them.
            texts: one or more; a generator is read as it comes. The same text twice is two rows.
            out: a directory that doesn't exist.
            kind: "float32" looks at every vector; "int8" and "binary" at codes of them, "hnsw" at a graph of
                near ones; what these find is ranked by the float32 vectors.
            dims: keep the first so many dimensions of each vector (Matryoshka; Kusupati et al., 2022,
                arXiv 2205.13147); what that costs is measured and stands in the record.
            metric: "cosine", or "dot" for models whose vectors' lengths mean something.
            recall: of the 10 nearest, the share that is to be found: the least effort that does is taken. By
                default 0.99 for int8, 0.95 for binary and hnsw.
            force: replace an index, after the new one is complete.

        Raises:
            BundleError: no bundle of a sentence encoder, or the directory exists.
            ConfigError: a kind, a metric or a number that can't be.
            InputError: no texts, something that is no text, or vectors that are not finite.
            BackendError: what the kind needs is not installed.
        """
        goal = GOALS.get(kind, 1.0) if recall is None else recall
        made_of = write.source(opened(bundle), _several(texts))
        write.build(made_of, _path(out), kind, dims, metric, goal, force)
        return cls(out)

    def append(self, bundle: str | Path | Bundle | Towers, texts: Iterable[str]) -> None:
        """Add texts behind those that the index has. A kill at any moment leaves it as it was.

        Scales and means stay those of the first build; effort and recall are measured anew.

        Raises:
            BundleError: another bundle than the index was built with, or somebody else is changing it.
            InputError: no texts, or something that is no text.
        """
        made_by = opened(bundle)
        with store.alone(self.directory):
            self._open(verify=False)  # somebody may have appended since
            self._check(made_by)
            write.append(self.directory, self.record, write.source(made_by, _several(texts)))
            self._open(verify=False)

    def delete(self, texts: Iterable[str] = (), rows: Iterable[int] = ()) -> int:
        """Take out every row of some texts, and some rows by number. A kill at any moment leaves the index as
        it was.

        What stays is written anew and numbered from 0 in the order that it had, so a deletion takes about as
        long as copying the index (a graph is built again). Scales and means stay those of the first build;
        effort and recall are measured anew.

        Returns:
            How many rows went.

        Raises:
            InputError: a text or a row that the index doesn't have, none is named, or none would stay.
            BundleError: a file has changed since it was written, or somebody else is changing the index.
        """
        with store.alone(self.directory):
            self._open(verify=True)  # what is copied gets new hashes
            gone = deleting.rows_of(self._texts, len(self), _several(texts), rows)
            deleting.delete(self.directory, self.record, gone)
            self._open(verify=False)
        return len(gone)

    def __len__(self) -> int:
        return self.record.rows

    def __repr__(self) -> str:
        return f"Index({str(self.directory)!r}, {len(self)} texts, {self.record.kind})"

    def text(self, row: int) -> str:
        """Raises InputError where the index has no such row."""
        if not 0 <= row < len(self):
            raise InputError(f"the index has no row {short(row)}: there are {len(self)}, numbered from 0")
        return self._texts[row]

    def search(
        self, queries: np.ndarray, k: int = 10, effort: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The k best rows for each query: candidates are found as the index's kind finds them, and ranked by
        the stored vectors, in float64. Rows of one score stand in the order of their numbers.

        Args:
            queries: (queries, width) floats, the model's vectors, or (queries, dims), cut already.
            k: rows a query; fewer are given where the index has fewer.
            effort: candidates for each of the k; what was measured while building by default. A float32 index
                looks at all of them.

        Returns:
            Rows (queries, k) int64, best first, and scores (queries, k) float64.

        Raises:
            InputError: of another width, not finite, no number of rows from 1.
        """
        return self._searcher.search(queries, k, effort)

    def ask(
        self, bundle: str | Path | Bundle | Towers, questions: str | Iterable[str], k: int = 10
    ) -> list[list[Hit]]:
        """The k best texts for each question, best first.

        Args:
            bundle: that the index was built with, or a copy of it.
            questions: one or more.

        Raises:
            BundleError: another bundle, whose vectors mean something else.
            InputError: no strings, or k is no number from 1.
        """
        asking = opened(bundle)
        self._check(asking)
        texts = listed([questions] if isinstance(questions, str) else questions, "questions")
        found = zip(*self.search(asking.embed(texts, "query"), k), strict=True)
        return [
            [Hit(int(row), float(score), self._texts[int(row)]) for row, score in zip(*each, strict=True)]
            for each in found
        ]

    def _check(self, asking: Model) -> None:
        if asking.digest != self.record.model:
            raise BundleError(
                f"{self.directory} holds vectors of another model than {asking.directory}: ask it with the "
                f"bundle that it was built with, which was {self.record.bundle}, or build it again"
            )

    def to_json(self) -> dict[str, Any]:
        """What is to be said of it."""
        record = self.record
        return {
            "directory": str(self.directory),
            "kind": record.kind,
            "metric": record.metric,
            "rows": len(self),
            "dims": record.dims,
            "effort": record.effort,
            "recall": dict(record.recall),
        }


def _path(directory: str | Path) -> Path:
    try:
        return Path(path_of(directory))
    except (TypeError, ValueError):
        raise BundleError(f"an index is a directory, not {short(directory)}") from None


def _several(texts: Iterable[str]) -> Iterable[str]:
    if isinstance(texts, str | bytes) or not isinstance(texts, Iterable):
        raise InputError(f"an index is made of a list of texts, not of {short(texts)}")
    return texts
