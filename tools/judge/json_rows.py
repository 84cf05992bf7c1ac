"""A .json file of rows, an array read an element at a time."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...ir.errors import DataError
from ...ir.host.files import MIB, open_regular, why

MOST = 4 * MIB  # characters of a row
_CHUNK = 1 << 16
_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()
_MEANT = 'an array of rows, [{"text": "…"}, …], or an object a line'


def is_array(path: Path) -> bool:
    """Whether a file begins as an array does.

    Raises:
        DataError: the file is missing or not UTF-8 text.
    """
    return _Stream(path).peek() == "["


def elements(path: Path) -> Iterator[tuple[int, Any]]:
    """(number, element) of the array that a file holds, numbered from 1.

    Raises:
        DataError: not UTF-8, no JSON at an element it names, an element longer than MOST, or no lone array.
    """
    stream = _Stream(path)
    if stream.peek() != "[":
        raise DataError(f"{path} should hold {_MEANT}")
    stream.at += 1
    number = 0
    while stream.peek() != "]" or number:
        number += 1
        try:
            yield number, stream.value()
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}, row {number}: not JSON ({why(error)})") from error
        after = stream.peek()
        if after == "]":
            break
        if after != ",":
            what = (
                f"is followed by {after!r} instead of a comma" if after else "is the last, and no ] follows"
            )
            raise DataError(f"{path}, row {number}: {what}")
        stream.at += 1
    stream.at += 1
    if stream.peek():
        raise DataError(f"{path} goes on after its array has ended: it should hold {_MEANT}")


class _Stream:
    """A file's text, as much of it as one row takes."""

    def __init__(self, path: Path) -> None:
        self.path, self.pieces, self.text, self.at = path, _pieces(path), "", 0

    def peek(self) -> str:
        """The next character that is no space, which stays; nothing at the end."""
        while True:
            space = _SPACE.match(self.text, self.at)
            self.at = space.end() if space else self.at
            if self.at < len(self.text):
                return self.text[self.at]
            if not self._more():
                return ""

    def value(self) -> Any:
        """The value that begins here. Raises ValueError or RecursionError where there is none."""
        self.peek()
        while True:
            fault: ValueError | None = None
            value, end = None, len(self.text)
            try:
                value, end = _DECODER.raw_decode(self.text, self.at)
            except ValueError as error:  # or it goes on in what is not read yet
                fault = error
            if end - self.at > MOST:
                raise ValueError(f"longer than {MOST / MIB:g} million characters")
            if end == len(self.text) and self._more():
                continue
            if fault is not None:
                raise fault
            self.at = end
            return value

    def _more(self) -> bool:
        """Read on, as much again as is held; False at the end."""
        parts, held = [self.text[self.at :]], len(self.text) - self.at
        wanted = held + max(_CHUNK, held)
        for piece in self.pieces:
            parts.append(piece)
            held += len(piece)
            if held >= wanted:
                break
        self.text, self.at = "".join(parts), 0
        return len(parts) > 1


def _pieces(path: Path) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    read = 0
    try:
        with open_regular(path) as file:
            while True:
                content = file.read(_CHUNK)
                pending = len(decoder.getstate()[0])
                try:
                    text = decoder.decode(content, final=not content)
                except UnicodeDecodeError as error:
                    raise DataError(
                        f"{path}: byte {read - pending + error.start + 1} is not UTF-8; "
                        "convert the file with iconv -t UTF-8"
                    ) from error
                read += len(content)
                if "\0" in text:
                    raise DataError(f"{path} holds a NUL byte, so it is not a text file")
                if text:
                    yield text
                if not content:
                    return
    except FileNotFoundError:
        raise DataError(f"no such data file: {path}") from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {why(error)}") from error
