"""The files of an index: rows are only ever written behind those before, and count once the record says so.

A kill at any moment leaves the record as it was. What stands behind the rows that it counts is nobody's, and
the next append writes over it; files that it doesn't name go with the next change.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ...ir.errors import BundleError
from ...ir.host import locks
from ...ir.host.files import MIB, open_regular, why
from .record import CODEBOOK, ENDS, NAME, ROWS, TEXTS, Piece, Record, named

_AGAIN = ": copy or build the index again"


class Appended:
    """A file that grows: bytes written behind its first `start`, with their digest. end: of what it holds."""

    def __init__(self, path: Path, start: int) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        self._file: BinaryIO = os.fdopen(descriptor, "r+b")
        self._file.truncate(start)
        self._file.seek(start)
        self._digest, self._start, self.end = hashlib.sha256(), start, start

    def write(self, data: bytes | memoryview) -> None:
        self._file.write(data)
        self._digest.update(data)
        self.end += len(data)

    def close(self) -> Piece:
        """On the disk when this returns."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return Piece(self.end - self._start, self._digest.hexdigest())

    def abandon(self) -> None:
        self._file.close()


@contextmanager
def appended(folder: Path, starts: dict[str, int], generation: int = 0) -> Iterator[dict[str, Appended]]:
    """Files of a generation to append to, by name, from where they end."""
    files: dict[str, Appended] = {}
    try:
        for name, start in starts.items():
            files[name] = Appended(folder / named(name, generation), start)
        yield files
    finally:
        for file in files.values():
            file.abandon()


def piece(path: Path) -> Piece:
    """A whole file, put on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return Piece(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


def commit(folder: Path, record: Record) -> None:
    """Make a record the index's, in one step; files that no record names any more go."""
    partial = folder / f".{NAME}.partial"
    with partial.open("wb") as file:
        file.write(record.to_bytes())
        file.flush()
        os.fsync(file.fileno())
    partial.replace(folder / NAME)
    with contextlib.suppress(OSError):  # a system without directories that can be opened
        descriptor = os.open(folder, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    tidy(folder, record)


def tidy(folder: Path, record: Record) -> None:
    """Remove graphs and files of rows that the record doesn't name."""
    used = {*record.whole, *(record.file(name) for name in record.chunks[0].files)}
    for pattern in ("graph-*", *(f"{name}*" for name in ROWS)):
        for path in folder.glob(pattern):
            if path.name not in used:
                path.unlink(missing_ok=True)


def alone(folder: Path) -> AbstractContextManager[None]:
    """Nobody else changes the index while the block runs. Raises BundleError where somebody does."""
    return locks.alone(folder, BundleError, f"another process changes {folder}: try again when it is done")


def verify(folder: Path, record: Record, hashes: bool = True) -> None:
    """Every byte that the record counts is there and unchanged.

    Raises:
        BundleError: naming the file.
    """
    rows = list(record.chunks[0].files)
    series = [(record.file(name), [chunk.files[name] for chunk in record.chunks]) for name in rows]
    for name, pieces in (*series, *((name, [each]) for name, each in record.whole.items())):
        path = folder / name
        try:
            with open_regular(path) as file:
                there, due = os.fstat(file.fileno()).st_size, sum(each.bytes for each in pieces)
                if there < due or (name in record.whole and there != due):
                    raise BundleError(f"{path} has {there} bytes and {NAME} counts {due}{_AGAIN}")
                if hashes and any(_digest(file, each.bytes) != each.sha256 for each in pieces):
                    raise BundleError(f"{path} is not the file that {NAME} was written for{_AGAIN}")
        except FileNotFoundError as error:
            raise BundleError(f"{path} is missing{_AGAIN}") from error
        except OSError as error:
            raise BundleError(f"{path} can't be read: {why(error)}") from error


def _digest(file: BinaryIO, count: int) -> str:
    digest = hashlib.sha256()
    while count and (data := file.read(min(count, MIB))):
        digest.update(data)
        count -= len(data)
    return digest.hexdigest()


def mapped(folder: Path, record: Record, name: str, dtype: str, width: int) -> np.ndarray:
    """(rows, width) of a file, read as they are looked at."""
    return np.memmap(folder / record.file(name), dtype, "r", shape=(record.rows, width)).view(np.ndarray)


def codebook(folder: Path) -> np.ndarray:
    return np.fromfile(folder / CODEBOOK, "<f4")


class Texts:
    """The texts of an index, by row."""

    def __init__(self, folder: Path, record: Record) -> None:
        self._ends = mapped(folder, record, ENDS, "<i8", 1)[:, 0]
        count = record.length(TEXTS)
        path = folder / record.file(TEXTS)
        self._bytes = np.memmap(path, "u1", "r", shape=(count,)) if count else np.empty(0, "u1")
        if np.any(self._ends[1:] < self._ends[:-1]) or self._ends[0] < 0 or self._ends[-1] != count:
            raise BundleError(f"{folder / record.file(ENDS)} doesn't fit {path.name}{_AGAIN}")

    def __getitem__(self, row: int) -> str:
        start = int(self._ends[row - 1]) if row else 0
        return self._bytes[start : int(self._ends[row])].tobytes().decode("utf-8", "replace")


def laid(texts: Iterable[str], start: int) -> tuple[bytes, np.ndarray]:
    """Texts behind each other in UTF-8, and where each ends, int64, counted from `start` before them."""
    encoded = [text.encode() for text in texts]
    return b"".join(encoded), start + np.cumsum([len(each) for each in encoded], dtype="<i8")
