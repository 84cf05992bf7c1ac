"""`optimize index`: its options."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Annotated

import typer

from ..console import Console
from ..options import OPTIONS
from .shared import Threads, text_column
from .verb import verb


@verb
def index_texts(
    source: Annotated[
        str, typer.Argument(metavar="BUNDLE|INDEX", help="a bundle to embed texts with, or an index to ask")
    ],
    texts: Annotated[
        str | None, typer.Argument(metavar="TEXTS", help="csv, tsv, jsonl, json or txt", show_default=False)
    ] = None,
    out: Annotated[
        str | None, typer.Option("-o", "--out", help="directory of the index", show_default=False)
    ] = None,
    query: Annotated[
        list[str] | None, typer.Option("--query", help="ask INDEX; may be repeated", show_default=False)
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="texts for each query")] = 10,
    bundle: Annotated[
        str | None,
        typer.Option(help="that INDEX was built with, if it has moved since", show_default=False),
    ] = None,
    kind: Annotated[
        str | None, typer.Option(help="float32 (the default), int8, binary or hnsw", show_default=False)
    ] = None,
    dims: Annotated[
        int | None, typer.Option(min=1, help="dimensions kept; all by default", show_default=False)
    ] = None,
    metric: Annotated[
        str | None, typer.Option(help="cosine (the default) or dot", show_default=False)
    ] = None,
    recall: Annotated[
        float | None,
        typer.Option(help="recall@10 to reach; 0.99 of int8, 0.95 of binary, hnsw", show_default=False),
    ] = None,
    columns: Annotated[str | None, OPTIONS["columns"].__metadata__[0]] = None,
    append: Annotated[bool, typer.Option("--append", help="add TEXTS to the index at OUT")] = False,
    delete: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="take this file's texts out of INDEX", show_default=False),
    ] = None,
    delete_rows: Annotated[
        str | None,
        typer.Option(metavar="ROWS", help="take these rows out of INDEX, as in 3,17", show_default=False),
    ] = None,
    threads: Threads = None,
    force: Annotated[bool, typer.Option("--force", help="replace an earlier index at OUT")] = False,
    *,
    console: Console,
) -> None:
    """Make an index of a file's texts with a sentence encoder's bundle, ask one, or take texts out of it."""
    from ..verbs import index as indexing

    if query:
        if texts is not None or out is not None:
            raise typer.BadParameter("name the index and what to ask: optimize index INDEX --query TEXT")
        hits = indexing.ask(source, query, bundle, k, threads)
        if console.json:
            console.value([[asdict(hit) for hit in each] for each in hits])
        else:
            console.show(*indexing.lines(query, hits))
        return
    if delete is not None or delete_rows is not None:
        if texts is not None or out is not None or append:
            raise typer.BadParameter("name the index and what goes: optimize index INDEX --delete FILE")
        count, left = indexing.delete(source, delete, text_column(columns), _rows(delete_rows), console)
        if console.json:
            console.value({**left.to_json(), "deleted": count})
        else:
            console.show(f"{count} rows deleted, the others numbered anew", *indexing.said(left))
        return
    if texts is None or out is None:
        raise typer.BadParameter(
            "write optimize index BUNDLE TEXTS -o INDEX, or optimize index INDEX --query TEXT"
        )
    column = text_column(columns)
    chosen = {"kind": kind, "dims": dims, "metric": metric, "recall": recall, "force": force or None}
    options = {name: value for name, value in chosen.items() if value is not None}
    if append and options:
        raise typer.BadParameter(f"--append adds to an index as it is: leave out --{next(iter(options))}")
    found = indexing.build(source, texts, out, column, append, console, **options)
    if console.json:
        console.value(found.to_json())
    else:
        console.show(*indexing.said(found))


def _rows(given: str | None) -> list[int]:
    """Numbers with commas between them. Raises BadParameter for anything else."""
    parts = given.split(",") if given is not None else []
    if not all(re.fullmatch(r"\s*[0-9]{1,18}\s*", part) for part in parts):
        raise typer.BadParameter("write numbers of rows with commas between them, as in --delete-rows 3,17")
    return [int(part) for part in parts]
