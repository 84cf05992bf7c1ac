"""Deleting rows from an index: those that stay go into new files, which count once the record says so."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ...ir.errors import BundleError, InputError, short
from ...ir.host.files import why
from . import store
from .record import CODES, VECTORS, Chunk, Record
from .vectors import BLOCK
from .write import finish, graphed, put


def rows_of(texts: store.Texts, count: int, named: Iterable[str], numbers: Iterable[Any]) -> np.ndarray:
    """Numbers of the rows that are meant, int64, ascending.

    Args:
        texts: of the index. count: its rows.
        named: texts, each of which may stand in several rows. numbers: of rows.

    Raises:
        InputError: one that the index doesn't have, or none at all.
    """
    try:
        wanted, rows = set(named), set(numbers)
    except TypeError:
        raise InputError("what is deleted are lists of texts and of numbers of rows") from None
    if not wanted and not rows:
        raise InputError("there is nothing to delete: name texts or rows")
    for row in rows:
        if isinstance(row, bool) or not isinstance(row, int | np.integer) or not 0 <= row < count:
            raise InputError(
                f"the index has no row {short(row)}: there are {count}, numbered from 0; nothing was deleted"
            )
    seen = set()
    for row in range(count) if wanted else ():
        text = texts[row]
        if text in wanted:
            seen.add(text)
            rows.add(row)
    if absent := wanted - seen:
        others = f" nor {len(absent) - 1} more of those named" if len(absent) > 1 else ""
        raise InputError(
            f"the index does not have the text {short(min(absent, key=str))}{others}; nothing was deleted"
        )
    return np.array(sorted(rows), np.int64)


def delete(directory: Path, record: Record, gone: np.ndarray) -> None:
    """Take rows out of an index that nobody else changes meanwhile, and whose files are verified.

    Args:
        gone: (rows,) int64.

    Raises:
        InputError: none would stay.
        BundleError: it can't be written.
    """
    stays = np.delete(np.arange(record.rows), gone)
    if not len(stays):
        raise InputError(f"no text would stay in {directory}: remove the directory to be rid of the index")
    try:
        finish(directory, _written(directory, record, stays))
    except OSError as error:
        store.tidy(directory, record)
        raise BundleError(f"nothing can be deleted from {directory}: {why(error)}") from error


def _written(directory: Path, record: Record, stays: np.ndarray) -> Record:
    """The record of the next generation, whose files are on the disk."""
    texts = store.Texts(directory, record)
    vectors = store.mapped(directory, record, VECTORS, "<f4", record.dims)
    old = record.chunks[0]
    codes = None
    if CODES in old.files:
        codes = store.mapped(directory, record, CODES, "u1", old.files[CODES].bytes // old.rows)
    generation, longest = record.generation + 1, 0.0
    with store.appended(directory, dict.fromkeys(old.files, 0), generation) as files:
        for start in range(0, len(stays), BLOCK):
            rows = stays[start : start + BLOCK]
            longest = max(longest, put(files, [texts[row] for row in rows.tolist()], vectors[rows]))
            if codes is not None:
                files[CODES].write(codes[rows].tobytes())
        pieces = {name: file.close() for name, file in files.items()}
    chunks = (Chunk(len(stays), pieces),)
    found = replace(record, chunks=chunks, longest=longest, generation=generation)
    return graphed(directory, found) if record.kind == "hnsw" else found
