"""Building an index, and appending to one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from ...backends.bundles.folder import appearing
from ...backends.target import allowed_cpus
from ...ir.errors import BundleError, ConfigError, InputError, short
from ...ir.host.files import why
from ...ir.inputs.texts import listed
from . import store
from .asking import held, sample
from .graph import Graph
from .model import Model
from .recall import measured, neighbours, shares
from .record import CODEBOOK, CODES, ENDS, KINDS, METRICS, NAME, TEXTS, VECTORS, Chunk, Piece, Record
from .search import CODERS, Searcher, check_installed
from .vectors import blocks, kept

_TOGETHER = 1024  # texts embedded between two writes
_FULL = "full.f32"  # vectors before they are cut, until the cut is measured


@dataclass(frozen=True)
class Source:
    """What an index is made of. stream: texts some at a time, with their (texts, width) float32 vectors.
    model: digest of what made them; bundle: where it is."""

    stream: Iterator[tuple[list[str], np.ndarray]]
    model: str
    bundle: str


def source(made_by: Model, texts: Iterable[str]) -> Source:
    """Texts with a model's vectors. Raises InputError, as it is read, for what is no text."""
    where = str(made_by.directory.resolve())
    return Source(_embedded(made_by, texts), made_by.digest, where)


def build(
    made_of: Source, out: Path, kind: str, dims: int | None, metric: str, goal: float, force: bool
) -> None:
    """Write a new index under its name once it is complete. Args and errors as `Index.build`."""
    if kind not in KINDS or metric not in METRICS:
        raise ConfigError(
            f"an index is of the kind {', '.join(KINDS)} and of the metric {', '.join(METRICS)}, "
            f"not {short(kind)} and {short(metric)}"
        )
    if not 0 <= goal <= 1:
        raise ConfigError(f"recall is a number from 0 to 1, not {short(goal)}")
    check_installed(kind)
    with appearing(out, force, NAME) as folder:
        _fill(folder, made_of, kind, dims, metric, goal)


def _fill(folder: Path, made_of: Source, kind: str, dims: int | None, metric: str, goal: float) -> None:
    first = next(made_of.stream, None)
    if first is None:
        raise InputError("there are no texts to index")
    width = first[1].shape[1]
    dims = width if dims is None else dims
    if not 1 <= dims <= width:
        raise ConfigError(
            f"the model's vectors have {width} dimensions; keep 1 to {width} of them, not {dims}"
        )
    files = {VECTORS: 0, TEXTS: 0, ENDS: 0}
    with store.appended(folder, {**files, _FULL: 0}) as open_files:
        full = open_files.pop(_FULL)
        rows, longest = 0, 0.0
        for batch, vectors in chain([first], made_of.stream):
            longest = max(longest, put(open_files, batch, kept(vectors, dims, metric, _called(rows))))
            if dims < width:
                full.write(kept(vectors, width, metric, _called(rows)).astype("<f4").tobytes())
            rows += len(batch)
        pieces = {name: file.close() for name, file in open_files.items()}
        full.close()
    record = Record(
        kind, metric, dims, width, made_of.model, made_of.bundle, longest, 1,
        {}, (Chunk(rows, pieces),),
    )  # fmt: skip
    vectors = store.mapped(folder, record, VECTORS, "<f4", dims)
    if kind in CODERS:
        fitted = CODERS[kind].fit(blocks(vectors))
        (folder / CODEBOOK).write_bytes(fitted.book.astype("<f4").tobytes())
        with store.appended(folder, {CODES: 0}) as open_files:
            pieces[CODES] = _encode(open_files[CODES], fitted, vectors)
        record = replace(record, whole={CODEBOOK: store.piece(folder / CODEBOOK)})
    record = replace(record, chunks=(Chunk(rows, pieces),))
    if kind == "hnsw":
        record = graphed(folder, record)
    cut = {"truncation": _truncation(folder, record)} if dims < width else {}
    (folder / _FULL).unlink()
    finish(folder, replace(record, recall={"goal": goal, **cut}))


def graphed(folder: Path, record: Record) -> Record:
    """The record with a graph of its vectors but those that ask, which is built."""
    graph = Graph(record.dims, len(allowed_cpus()))
    rows = np.setdiff1d(np.arange(record.rows), held(record))
    graph.add(store.mapped(folder, record, VECTORS, "<f4", record.dims), rows)
    graph.save(folder / record.graph)
    return replace(record, whole={record.graph: store.piece(folder / record.graph)})


def append(directory: Path, record: Record, made_of: Source) -> None:
    """Add texts to an index that nobody else appends to meanwhile. Errors as `Index.append`."""
    try:
        _append(directory, record, made_of)
    except OSError as error:
        raise BundleError(f"{directory} can't be appended to: {why(error)}") from error


def _append(directory: Path, record: Record, made_of: Source) -> None:
    names = list(record.chunks[0].files)
    starts = {name: record.length(name) for name in names}
    fitted = CODERS[record.kind](store.codebook(directory)) if record.kind in CODERS else None
    graph = None
    if record.kind == "hnsw":
        path = directory / record.graph
        inside = record.rows - len(held(record))
        graph = Graph.opened(path, record.dims, inside, len(allowed_cpus()), view=False)
    rows, longest = 0, 0.0
    with store.appended(directory, starts, record.generation) as files:
        for batch, vectors in made_of.stream:
            stored = kept(vectors, record.dims, record.metric, _called(rows))
            longest = max(longest, put(files, batch, stored))
            if fitted is not None:
                files[CODES].write(fitted.encode(stored).tobytes())
            if graph is not None:
                graph.add(stored, np.arange(len(stored)), record.rows + rows)
            rows += len(batch)
        if not rows:
            raise InputError("there are no texts to append")
        pieces = {name: file.close() for name, file in files.items()}
    found = record.more(Chunk(rows, pieces), record.whole, longest)
    if graph is not None:
        graph.save(directory / found.graph)
        found = replace(found, whole={found.graph: store.piece(directory / found.graph)})
    finish(directory, found)


def finish(directory: Path, record: Record) -> None:
    """Make a record the index's, with the least effort that reaches its goal and the recall of that."""
    effort, recall = measured(Searcher(directory, record, len(allowed_cpus())), record.recall["goal"])
    store.commit(directory, replace(record, effort=effort, recall={**record.recall, **recall}))


def _embedded(made_by: Model, texts: Iterable[str]) -> Iterator[tuple[list[str], np.ndarray]]:
    """Texts some at a time, with (texts, width) vectors."""
    stream, first = iter(texts), 0
    while batch := list(islice(stream, _TOGETHER)):
        checked = listed(batch, _called(first))
        first += len(batch)
        yield checked, made_by.embed(checked, "document")


def _called(first: int) -> str:
    """How a sentence calls the texts from one on."""
    return f"texts[{first}:]" if first else "texts"


def put(files: dict[str, store.Appended], texts: list[str], vectors: np.ndarray) -> float:
    """A batch behind those before, and the norm of its longest vector."""
    content, ends = store.laid(texts, files[TEXTS].end)
    files[VECTORS].write(vectors.astype("<f4").tobytes())
    files[TEXTS].write(content)
    files[ENDS].write(ends.tobytes())
    return float(np.linalg.norm(vectors.astype(np.float64), axis=1).max())


def _encode(file: store.Appended, fitted: Any, vectors: np.ndarray) -> Piece:
    for block in blocks(vectors):
        file.write(fitted.encode(block).tobytes())
    return file.close()


def _truncation(folder: Path, record: Record) -> dict[str, Any]:
    """recall@10 of exact search in the cut vectors, against exact search in all of their dimensions."""
    full = store.mapped(folder, record, _FULL, "<f4", record.width)
    cut = store.mapped(folder, record, VECTORS, "<f4", record.dims)
    asking = sample(record.rows)
    longest = float(max(np.linalg.norm(block.astype(np.float64), axis=1).max() for block in blocks(full)))
    found = [neighbours(each, asking, norm) for each, norm in ((full, longest), (cut, record.longest))]
    recall = float(shares(*found).mean())
    return {"dims": record.dims, "of": record.width, "recall": recall, "rows": record.rows}
