"""The texts of a file to index: one column of it, read as it comes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

from ...ir.errors import DataError
from ..judge.columns import Column, called, choose
from ..judge.data import opened
from ..judge.records import place


def texts_of(path: str, column: Column | None, say: Callable[[str], None]) -> Iterator[str]:
    """Each text of a csv, tsv, jsonl, json or plain text file, in file order; blank ones are left out.

    Args:
        column: that holds the texts; guessed by usual names and by content where None.
        say: takes a sentence for each thing that was guessed, and the count of blank rows at the end.

    Raises:
        DataError: the file is missing, empty or malformed, or lacks the column.
    """
    name = Path(path).name
    told = {} if column is None else {"text": column}
    head, rest, said = opened(Path(path), told)
    chosen, _ = choose(path, [record for _, record in head], told)
    if "text" not in chosen:
        raise DataError(f"{path} has no column that looks like text; name it with --columns text=NAME")
    for sentence in said:
        say(sentence)
    if len(head[0][1]) > 1 and column is None:
        say(f"{name}: the text is {called(chosen['text'])}")
    blank = 0
    for line, record in chain(head, rest):
        text = record.get(chosen["text"])
        if not isinstance(text, str):
            raise DataError(f"{place(path, line)}: {called(chosen['text'])} should be text, not {text!r}")
        if text.strip():
            yield text
        else:
            blank += 1
    if blank:
        say(f"{name}: {blank} {'row' if blank == 1 else 'rows'} without text left out")
