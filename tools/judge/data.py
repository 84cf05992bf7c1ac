"""A person's data file as rows of text, pair and label; what is guessed about it is said."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from ...ir.errors import DataError
from ..config import ROLES, TaskName
from .columns import Column, Record, called, choose, find_header, is_missing, is_number
from .grouped import sample_groups
from .records import SEPARATORS, SUFFIXES, kind, place, records, separator

GROUPED = ("retrieval", "rerank")  # a query's rows belong together
NUMBERED = ("similarity", *GROUPED)  # labels are numbers
PEEK = 50  # records looked at before the columns are settled
NEEDS: Mapping[str, tuple[str, ...]] = {
    "classification": ("text", "label"),
    "similarity": ("text", "pair", "label"),
    "token-classification": ("text", "label"),
    "perplexity": ("text",),
    "retrieval": ("text", "pair"),
    "rerank": ("text", "pair", "label"),
    "fidelity": ("text",),
}


@dataclass(frozen=True)
class Row:
    """One example. line: where it begins in the file, from 1; its number in an array. Tuples of words for
    token classification."""

    line: int
    text: str | tuple[str, ...]
    pair: str | None = None
    label: Any = None


@dataclass(frozen=True)
class Data:
    """Rows for a task, in file order. said: one sentence for each thing that was guessed. documents: of a
    task that ranks them, each once; the pairs of all rows, also where the rows are some of those."""

    path: str
    task: TaskName
    rows: tuple[Row, ...]
    said: tuple[str, ...] = ()
    documents: tuple[str, ...] = ()


def read(
    path: str,
    model_task: str,
    task: TaskName | None = None,
    columns: Mapping[str, Column] | None = None,
    samples: int = 2000,
    seed: int = 0,
) -> Data:
    """Read a csv, tsv, jsonl, json (an array of rows) or plain text file (one text a line).

    The file is streamed, and at most `samples` rows are kept: a uniform sample over the whole file, drawn
    with `seed`, so that a file sorted by label still gives every label.

    Args:
        path: the file.
        model_task: the program's task, from which `task` is guessed when it is not given.
        task: what the rows are for.
        columns: role -> column, for the roles that are not to be guessed.
        samples: rows kept at most.
        seed: of the sample.

    Raises:
        DataError: the file is missing, empty, not text, lacks a column, or a row of it is malformed.
    """
    name = Path(path).name
    told = columns or {}
    head, rest, said = opened(Path(path), told)
    chosen, guessed = choose(path, [record for _, record in head], told)
    if task is None:
        task = _task(model_task, chosen)
        unused = " and its labels are not used" if task == "fidelity" and "label" in chosen else ""
        said.append(f"{name}: the task is taken to be {task}{unused}")
    for role in NEEDS[task]:
        if role not in chosen:
            present = ", ".join(map(called, head[0][1]))
            raise DataError(
                f"{path}: {task} needs a {role} column, and no other of {present} looks like one; "
                f"name it with --columns {role}=NAME"
            )
    roles = [role for role in ROLES if role in chosen and _used(task, role, guessed.get(role))]
    if kind(Path(path)) != ".txt" and guessed.keys() & roles:
        said.append(f"{name}: " + ", ".join(f"the {role} is {called(chosen[role])}" for role in roles))
    used = {role: chosen[role] for role in roles}
    rows = (_row(path, line, record, used, task) for line, record in chain(head, rest))
    real = (row for row in rows if row is not None)
    if task in GROUPED:
        kept, total = sample_groups(real, lambda row: str(row.text), samples, seed)
    else:
        kept, total = _sample(real, samples, seed)
    if not kept:
        raise DataError(f"{path} holds no text")
    if total > len(kept):
        said.append(f"{name}: {len(kept)} of {total} rows are used (--samples)")
    documents = dict.fromkeys(row.pair or "" for row in kept) if task in GROUPED else ()
    return Data(path, task, tuple(kept), tuple(said), tuple(documents))


def opened(
    path: Path, told: Mapping[str, Column]
) -> tuple[list[tuple[int, Record]], Iterator[tuple[int, Record]], list[str]]:
    """The first records, the rest, both keyed by column, and what was found out about a header.

    Raises:
        DataError: the file is missing, empty or not text.
    """
    usual = SUFFIXES.get(kind(path), "")
    apart = separator(path) if usual else ""
    stream = records(path, apart)
    head = list(islice(stream, PEEK))
    if not head:
        meant = "an array of rows" if kind(path) == ".json" else "one example a line"
        raise DataError(f"{path} is empty; it should hold {meant}")
    if isinstance(head[0][1], dict):
        return head, stream, []
    names: list[Column] = list(range(1, len(head[0][1]) + 1))
    said = [f"{path.name}: its columns are separated by {SEPARATORS[apart]}"] if apart != usual else []
    if kind(path) != ".txt":
        header = find_header([[str(cell) for cell in cells] for _, cells in head], told)
        if header is None:
            said.append(f"{path.name}: the first row is taken as data, there being no header")
        else:
            names, head = [*header], head[1:]
            if not head:
                raise DataError(f"{path} has a header and no rows")
    keyed = ((line, dict(zip(names, cells, strict=True))) for line, cells in chain(head, stream))
    return list(islice(keyed, len(head))), keyed, said


def _task(model_task: str, chosen: Mapping[str, Column]) -> TaskName:
    if model_task in {"masked-lm", "causal-lm"}:
        return "perplexity"
    if model_task == "embedding" and {"pair", "label"} <= set(chosen):
        return "similarity"
    if model_task == "sequence-classification" and "label" in chosen:
        return "classification"
    if model_task == "token-classification" and "label" in chosen:
        return "token-classification"
    return "fidelity"


def _used(task: TaskName, role: str, guessed_by: str | None) -> bool:
    # A second text of a classification is taken only by its name: any other column might be a comment.
    # So are labels of retrieval, where pairs without any are pairs that belong together.
    more = {"classification": "pair", "retrieval": "label"}.get(task)
    return role in NEEDS[task] or (role == more and guessed_by != "content")


def _row(path: str, line: int, record: Record, used: Mapping[str, Column], task: TaskName) -> Row | None:
    """One example, None when its text is blank."""
    found: dict[str, Any] = {role: record.get(column) for role, column in used.items()}
    for role, column in used.items():
        if found[role] is None:
            raise DataError(f"{place(path, line)}: has no {called(column)}")
    if task == "token-classification":
        words, tags = (_words(found[role]) for role in ("text", "label"))
        if len(words) != len(tags):
            raise DataError(f"{place(path, line)}: {len(words)} words and {len(tags)} labels")
        return Row(line, words, label=tags) if words else None
    word = str(found.get("label")).strip().lower()
    if is_missing(found.get("label", "there")) and (task in NUMBERED or word in {"", "nan"}):
        where = called(used["label"])
        raise DataError(
            f"{place(path, line)}: {where} is {found['label']!r}, which is no label: fill it in, or "
            "leave the row out"
        )
    for role in used.keys() & {"text", "pair"}:
        if not isinstance(found[role], str):
            raise DataError(f"{place(path, line)}: {called(used[role])} should be text, not {found[role]!r}")
    if task in NUMBERED and "label" in found:
        if not is_number(found["label"]):
            where = called(used["label"])
            raise DataError(f"{place(path, line)}: {where} should be a number, not {found['label']!r}")
        found["label"] = float(found["label"])
    return Row(line, **found) if found["text"].strip() else None


def _words(value: Any) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list) else tuple(str(value).split())


def _sample(rows: Iterator[Row], samples: int, seed: int) -> tuple[list[Row], int]:
    """A uniform sample in one pass (Vitter, 1985, algorithm R), in file order, and how many there were."""
    draw = random.Random(seed)
    kept: list[Row] = []
    total = 0
    for total, row in enumerate(rows, 1):
        if total <= samples:
            kept.append(row)
        elif (seat := draw.randrange(total)) < samples:
            kept[seat] = row
    return sorted(kept, key=lambda row: row.line), total
