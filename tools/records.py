"""csv, tsv, jsonl and plain text files as a stream of records, checked line by line to be what they say."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from ..ir.errors import DataError
from ..ir.files import MIB, open_regular, why

MOST = 4 * MIB  # bytes of a line
SUFFIXES = {".csv": ",", ".tsv": "\t", ".jsonl": "", ".ndjson": "", ".txt": ""}


def records(path: Path) -> Iterator[tuple[int, Any]]:
    """(line, record): a list of cells, or a dict by column where the format names them.

    Raises:
        DataError: the file is missing, in no known format, not UTF-8 text, or malformed at a line it names.
    """
    check_suffix(path)
    if path.suffix in {".jsonl", ".ndjson"}:
        yield from _json_records(path)
    elif path.suffix == ".txt":
        for line, text in enumerate(_lines(path), 1):
            if text.strip():
                yield line, [text.strip()]
    else:
        # tsv as it is met in the wild has bare quotes in its text, so there a quote is a character.
        quoting: Literal[0, 3] = csv.QUOTE_NONE if path.suffix == ".tsv" else csv.QUOTE_MINIMAL
        reader = csv.reader(_lines(path), delimiter=SUFFIXES[path.suffix], quoting=quoting)
        width, start = None, 1
        try:
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    width = width or len(cells)
                    if len(cells) != width:
                        raise DataError(
                            f"{path}, line {start}: {len(cells)} columns, and the first row has {width}"
                        )
                    yield start, cells
                start = reader.line_num + 1
        except csv.Error as error:
            raise DataError(f"{path}, line {reader.line_num}: {error}") from error


def check_suffix(path: Path) -> None:
    """Raises DataError for a file whose name says no format that is read."""
    if path.suffix not in SUFFIXES:
        raise DataError(
            f"{path}: data is read from {', '.join(SUFFIXES)} files, and this ends in none of them"
        )


def _json_records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, text in enumerate(_lines(path), 1):
        if not text.strip():
            continue
        try:
            record = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}, line {line}: not JSON ({why(error)})") from error
        if not isinstance(record, dict):
            raise DataError(f'{path}, line {line}: should be a JSON object, such as {{"text": "…"}}')
        yield line, record


def _lines(path: Path) -> Iterator[str]:
    """Decoded lines, each checked to be text."""
    try:
        with open_regular(path) as file:
            for number, line in enumerate(iter(lambda: file.readline(MOST + 1), b""), 1):
                if len(line) > MOST:
                    raise DataError(
                        f"{path}, line {number}: longer than {MOST / MIB:g} MB; write an example a line"
                    )
                if b"\0" in line:
                    raise DataError(f"{path}, line {number}: holds a NUL byte, so it is not a text file")
                try:
                    yield line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    raise DataError(
                        f"{path}, line {number}: byte {error.start + 1} is not UTF-8; "
                        "convert the file with iconv -t UTF-8"
                    ) from error
    except FileNotFoundError:
        raise DataError(f"no such data file: {path}") from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {why(error)}") from error
