"""Which column of a data file plays which role: told, or guessed by usual names and by what is inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...ir.errors import DataError, did_you_mean

Column = int | str  # a name, or a number from 1 where there is no header
Record = Mapping[Column, Any]

_MISSING = {"", "nan", "na", "n/a", "null", "none"}
USUAL_NAMES: Mapping[str, tuple[str, ...]] = {
    "text": (
        "text", "sentence", "sentence1", "sentence_1", "sent1", "s1", "premise", "question", "question1",
        "query", "tokens", "words", "review", "content", "document", "input",
    ),
    "pair": ("pair", "text2", "text_2", "sentence2", "sentence_2", "sent2", "s2", "hypothesis", "question2"),
    "label": (
        "label", "labels", "score", "similarity", "similarity_score", "relatedness_score", "tags",
        "ner_tags", "class", "category", "sentiment", "target", "gold", "stars",
    ),
}  # fmt: skip


def find_header(rows: Sequence[Sequence[str]], told: Mapping[str, Column]) -> list[str] | None:
    """The first row where it names the columns, None where it is data already."""
    first = [cell.strip() for cell in rows[0]]
    usual = {name for names in USUAL_NAMES.values() for name in names}
    if any(cell.lower() in usual or cell in told.values() for cell in first):
        return first
    numbers_below_a_word = len(rows) > 1 and any(
        not is_number(cell) and _numeric([row[i] for row in rows[1:]]) for i, cell in enumerate(first)
    )
    return first if numbers_below_a_word else None


def choose(
    path: str, head: Sequence[Record], told: Mapping[str, Column]
) -> tuple[dict[str, Column], dict[str, str]]:
    """Role ("text", "pair", "label") -> column for every role found; guessed role -> "name" or "content".

    Raises:
        DataError: a told column is not in the file; names the nearest.
    """
    present = list(dict.fromkeys(column for record in head for column in record))
    chosen: dict[str, Column] = {}
    for role, column in told.items():
        if column not in present and str(column).isdigit():
            column = int(column)
        if column not in present:
            raise DataError(f"{path} has no column {column!r}{did_you_mean(str(column), map(str, present))}")
        chosen[role] = column
    guessed: dict[str, str] = {}

    def guess(role: str, candidates: Sequence[Column], by: str = "content") -> None:
        free = [column for column in candidates if column not in chosen.values()]
        if role not in chosen and free:
            chosen[role] = free[0]
            guessed[role] = by

    by_name = {str(column).lower(): column for column in present}
    for role, names in USUAL_NAMES.items():
        guess(role, [by_name[name] for name in names if name in by_name], by="name")
    values = {column: [record.get(column) for record in head] for column in present}
    numeric = [column for column in present if _numeric(values[column])]
    prose = [column for column in present if column not in numeric and column not in chosen.values()]
    guess("label", numeric[::-1])
    if len(prose) > 1:
        # A handful of words that come again and again are classes, not sentences.
        most = max(2, len(head) // 5)
        guess("label", [column for column in prose[::-1] if len(set(map(str, values[column]))) <= most])
    guess("text", prose)
    guess("pair", prose)
    return chosen, guessed


def is_number(value: Any) -> bool:
    """A finite number, or text that spells one."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return False
    try:
        return abs(float(value)) < float("inf")
    except ValueError:
        return False


def is_missing(value: Any) -> bool:
    """Whether it stands for a value that is not there: empty, NaN, or a word for it."""
    if isinstance(value, str):
        return value.strip().lower() in _MISSING
    return value is None or (isinstance(value, float) and value != value)


def _numeric(values: Sequence[Any]) -> bool:
    """Numbers, some of which may be missing; all of them only where they say so."""
    if not all(is_number(value) or is_missing(value) for value in values):
        return False
    return any(is_number(value) or str(value).strip() for value in values if value is not None)


def called(column: Column) -> str:
    """How a sentence calls a column."""
    return repr(column) if isinstance(column, str) else f"column {column}"
