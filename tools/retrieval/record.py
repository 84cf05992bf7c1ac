"""index.json: what an index is, read with distrust. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ...backends.bundles.manifest import sealed, unsealed
from ...backends.typed import many, maybe, number, table, text, whole
from ...ir.errors import BundleError, short
from ...ir.host.files import FAULTS, MIB, read_regular, why

NAME = "index.json"
FORMAT = 3
KINDS = ("float32", "int8", "binary", "hnsw")
METRICS = ("cosine", "dot")
VECTORS, CODES, TEXTS, ENDS = "vectors.f32", "codes.u8", "texts.utf8", "texts.ends"
ROWS = (VECTORS, CODES, TEXTS, ENDS)  # files that a chunk adds to
CODEBOOK, GRAPH = "codebook.f32", "graph-{}-{}.hnsw"
_MOST_BYTES = 64 * MIB  # of a record: one of 100,000 appends
_MOST_DIMS = 65_535  # numbers of bits that differ are counted in 16


@dataclass(frozen=True)
class Piece:
    """Bytes of a file, and their digest."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Chunk:
    """What one build or append added: rows, and by file name what was written behind the chunks before."""

    rows: int
    files: Mapping[str, Piece]


@dataclass(frozen=True)
class Record:
    """What there is to know of an index.

    kind: one of KINDS. metric: one of METRICS. dims: of a stored vector; width: of the model's, which is cut
    to them. model: digest of the bundle; bundle: where it was. longest: norm of the longest vector. effort:
    candidates for each row that is asked for, which are ranked anew by the vectors. recall: as measured.
    chunks: in the order of rows. whole: files that are no series of chunks. generation: how often rows were
    deleted, each time into new files.
    """

    kind: str
    metric: str
    dims: int
    width: int
    model: str
    bundle: str
    longest: float
    effort: int
    recall: Mapping[str, Any]
    chunks: tuple[Chunk, ...] = ()
    whole: Mapping[str, Piece] = field(default_factory=dict)
    generation: int = 0

    @property
    def rows(self) -> int:
        return sum(chunk.rows for chunk in self.chunks)

    @property
    def graph(self) -> str:
        """The name of the graph's file; each append writes another."""
        return GRAPH.format(self.generation, len(self.chunks))

    def file(self, name: str) -> str:
        """The name in the directory of one of ROWS."""
        return named(name, self.generation)

    def more(self, chunk: Chunk, whole: Mapping[str, Piece], longest: float) -> Record:
        """The record after an append."""
        return replace(self, chunks=(*self.chunks, chunk), whole=whole, longest=max(self.longest, longest))

    def length(self, name: str) -> int:
        """Bytes of a file that rows are written to."""
        return sum(chunk.files[name].bytes for chunk in self.chunks)

    def to_bytes(self) -> bytes:
        return sealed({"format": FORMAT, **asdict(self)})


def named(name: str, generation: int) -> str:
    """One of ROWS, as a generation's file is called."""
    return f"{name}.{generation}" if generation else name


def read_record(folder: Path) -> Record:
    """The checked record of an index.

    Raises:
        BundleError: there is none, it isn't one, it has changed, or it is of a newer format.
    """
    path = folder / NAME
    try:
        found = unsealed(path, read_regular(path, _MOST_BYTES))
    except FileNotFoundError as error:
        raise BundleError(
            f"{folder} has no {NAME}: an index is what `optimize index BUNDLE TEXTS -o DIRECTORY` writes"
        ) from error
    except OSError as error:
        raise BundleError(f"{path} can't be read: {why(error)}") from error
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path} is not valid JSON: build the index again") from error
    version = found.get("format") if isinstance(found, dict) else None
    if type(version) is not int or version < 1:
        raise BundleError(f"{path} is not the record of an index")
    if version > FORMAT:
        raise BundleError(
            f"{folder} has index format {short(version)} and this graphwright reads up to {FORMAT}: "
            "pip install --upgrade graphwright"
        )
    if version < FORMAT:
        raise BundleError(
            f"{folder} has index format {version} of an older graphwright: build the index again"
        )
    try:
        return _parsed(found)
    except FAULTS as error:
        raise BundleError(f"{path} is damaged ({why(error)}): build the index again") from error


def _parsed(found: Mapping[str, Any]) -> Record:
    record = Record(
        kind=_of(KINDS, found["kind"]),
        metric=_of(METRICS, found["metric"]),
        dims=whole(found["dims"], 1, _MOST_DIMS),
        width=whole(found["width"], 1, _MOST_DIMS),
        model=text(found["model"]),
        bundle=text(found["bundle"]),
        longest=number(found["longest"], 0, 1e30),
        effort=whole(found["effort"], 1, 1 << 20),
        recall=table(found["recall"]),
        chunks=many(lambda each: Chunk(whole(each["rows"], 1), _pieces(each["files"])), found["chunks"]),
        whole=_pieces(found["whole"]),
        generation=whole(found["generation"]),
    )
    if record.dims > record.width or not record.chunks:
        raise ValueError("its sizes don't agree")
    for chunk in record.chunks:
        sizes = {VECTORS: 4 * record.dims * chunk.rows, ENDS: 8 * chunk.rows, **_codes(record, chunk)}
        if chunk.files.keys() != {*sizes, TEXTS} or any(chunk.files[n].bytes != b for n, b in sizes.items()):
            raise ValueError("its files don't have the bytes of their rows")
    due = {"int8": {CODEBOOK}, "binary": {CODEBOOK}, "hnsw": {record.graph}, "float32": set()}[record.kind]
    if record.whole.keys() != due or (CODEBOOK in due and record.whole[CODEBOOK].bytes != 4 * record.dims):
        raise ValueError("it lacks a file, or has one too many")
    maybe(lambda value: number(value, 0, 1), record.recall.get("value"))
    return record


def _codes(record: Record, chunk: Chunk) -> dict[str, int]:
    width = {"int8": record.dims, "binary": -(-record.dims // 8)}.get(record.kind)
    return {} if width is None else {CODES: width * chunk.rows}


def _pieces(found: Any) -> dict[str, Piece]:
    return {
        text(name): Piece(whole(each["bytes"]), text(each["sha256"])) for name, each in table(found).items()
    }


def _of(known: tuple[str, ...], value: Any) -> str:
    if value not in known:
        raise ValueError(f"{short(value)} where one of {', '.join(known)} is due")
    return text(value)
