"""csv, tsv, jsonl, json and plain text files as a stream of records, each checked to be what it should be."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from ...ir.errors import DataError, short
from ...ir.host.files import MIB, open_regular, why
from .json_rows import elements, is_array

MOST = 4 * MIB  # bytes of a line
SUFFIXES = {".csv": ",", ".tsv": "\t", ".jsonl": "", ".ndjson": "", ".json": "", ".txt": ""}


SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_CALLED: dict[type[Any], str] = {dict: "object", list: "array", str: "text"}
_PEEK = 50  # lines that a separator is looked for in
_DECIMAL = re.compile(r"\s*-?\d+,\d+\s*")  # as it is written where columns are separated by semicolons


csv.field_size_limit(MOST)  # whole reviews are longer than the 128 KB that it allows


def kind(path: Path) -> str:
    """The format that a file's name says, whichever case it is written in."""
    return path.suffix.lower()


def place(path: str | Path, number: int) -> str:
    """How a sentence calls a record: by its line, in arrays by its number."""
    return f"{path}, {'row' if kind(Path(path)) == '.json' else 'line'} {number}"


def separator(path: Path) -> str:
    """What separates the columns of a csv or tsv file: what its name says, unless the lines fall into as many
    columns each by another character alone.

    Raises:
        DataError: the file is missing, or is not UTF-8 text.
    """
    usual = SUFFIXES[kind(path)]
    head = list(islice(_lines(path), _PEEK + 1))
    tables = {each: _table(head, each, kind(path)) for each in SEPARATORS}
    found = {each: table for each, table in tables.items() if table}
    decimals = [
        each
        for each in found.keys() & {";", "\t"}
        if any(
            all(_DECIMAL.fullmatch(cell) for cell in column[1:]) for column in zip(*found[each], strict=True)
        )
    ]
    if usual in found and not (usual == "," and len(found[","]) > 1 and decimals):
        return usual
    return max(decimals or found, key=lambda each: len(found[each][0]), default=usual)


def _table(lines: list[str], separator: str, suffix: str) -> list[list[str]]:
    """The rows, where all have as many columns, two at least; none otherwise."""
    rows = [row for row in csv.reader(lines, delimiter=separator, quoting=_quoting(suffix)) if any(row)]
    rows = rows[:-1] if len(lines) > _PEEK else rows  # which may go on
    widths = {len(row) for row in rows}
    return rows if len(widths) == 1 and widths.pop() > 1 else []


def _quoting(suffix: str) -> Literal[0, 3]:
    # tsv as it is met in the wild has bare quotes in its text, so there a quote is a character.
    return csv.QUOTE_NONE if suffix == ".tsv" else csv.QUOTE_MINIMAL


def records(path: Path, separator: str = "") -> Iterator[tuple[int, Any]]:
    """(line, record): a list of cells, or a dict by column where the format names them.

    Args:
        separator: of the columns of a csv or tsv file; what its name says by default.

    Raises:
        DataError: the file is missing, in no known format, not UTF-8 text, or malformed at a line it names.
    """
    check_suffix(path)
    if kind(path) == ".json" and is_array(path):
        yield from _array_records(path)
    elif kind(path) in {".jsonl", ".ndjson", ".json"}:
        yield from _json_records(path)
    elif kind(path) == ".txt":
        for line, text in enumerate(_lines(path), 1):
            if text.strip():
                yield line, [text.strip()]
    else:
        delimiter = separator or SUFFIXES[kind(path)]
        reader = csv.reader(_lines(path), delimiter=delimiter, quoting=_quoting(kind(path)))
        width, start = None, 1
        try:
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    width = width or len(cells)
                    if len(cells) != width:
                        raise DataError(
                            f"{path}, line {start}: {len(cells)} columns, and the first row has {width}"
                        )
                    if delimiter == ";":
                        cells = [c.replace(",", ".") if _DECIMAL.fullmatch(c) else c for c in cells]
                    yield start, cells
                start = reader.line_num + 1
        except csv.Error as error:
            raise DataError(f"{path}, line {reader.line_num}: {error}") from error


def check_suffix(path: Path) -> None:
    """Raises DataError for a file whose name says no format that is read."""
    if kind(path) not in SUFFIXES:
        raise DataError(
            f"{path}: data is read from {', '.join(SUFFIXES)} files, and this ends in none of them"
        )


def _array_records(path: Path) -> Iterator[tuple[int, dict[str, Any] | list[Any]]]:
    """Objects as they are; arrays as cells, texts as one cell."""
    first: tuple[type[Any], int] | None = None
    for number, element in elements(path):
        if not isinstance(element, dict | list | str):
            raise DataError(
                f'{place(path, number)}: should be a JSON object, such as {{"text": "…"}}, '
                f"not {short(element)}"
            )
        record = [element] if isinstance(element, str) else element
        first = first or (type(element), len(record))
        if type(element) is not first[0]:
            raise DataError(f"{place(path, number)}: is no {_CALLED[first[0]]}, as the first row is")
        if isinstance(record, list) and len(record) != first[1]:
            raise DataError(f"{place(path, number)}: {len(record)} columns, and the first row has {first[1]}")
        yield number, record


def _json_records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, text in enumerate(_lines(path), 1):
        if not text.strip():
            continue
        try:
            record = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{place(path, line)}: not JSON ({why(error)})") from error
        if not isinstance(record, dict):
            raise DataError(f'{place(path, line)}: should be a JSON object, such as {{"text": "…"}}')
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
