"""`optimize index`: its options."""

from __future__ import annotations

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
    threads: Threads = None,
    force: Annotated[bool, typer.Option("--force", help="replace an earlier index at OUT")] = False,
    *,
    console: Console,
) -> None:
    """Make an index of a file's texts with a sentence encoder's bundle, or ask one."""
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
