"""`optimize knn-lm`: its options."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from ..console import Console
from ..options import OPTIONS
from .shared import Model, Threads, text_column
from .verb import verb


@verb
def knn_lm(
    model: Model,
    store: Annotated[str, typer.Argument(metavar="STORE", help="directory of the datastore")],
    texts: Annotated[
        str | None, typer.Option(help="build STORE from this file of texts", show_default=False)
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="file of texts to tell perplexity on", show_default=False)
    ] = None,
    columns: Annotated[str | None, OPTIONS["columns"].__metadata__[0]] = None,
    neighbours: Annotated[int, typer.Option(min=1, help="that are looked at")] = 1024,
    weight: Annotated[
        float | None, typer.Option(help="of the neighbours; chosen by half of the texts", show_default=False)
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="of squared distances; chosen likewise", show_default=False)
    ] = None,
    threads: Threads = None,
    force: Annotated[bool, typer.Option("--force", help="replace an earlier datastore")] = False,
    *,
    console: Console,
) -> None:
    """Mix what followed similar states in a collection into a language model, and tell its perplexity."""
    from ...backends.target import allowed_cpus
    from ..verbs import knn_lm as mixing

    if texts is None and data is None:
        raise typer.BadParameter("name --texts to build the datastore from, --data to judge it on, or both")
    found, mixed = mixing.run(
        model, store, texts, data, text_column(columns), neighbours, weight, temperature,
        threads or len(allowed_cpus()), force, console,
    )  # fmt: skip
    if console.json:
        console.value({"directory": store, "tokens": len(found), "quality": mixed and asdict(mixed)})
    else:
        console.show(*mixing.lines(store, found, mixed))
