"""`optimize serve`: its options."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from ..console import Console
from .shared import Threads
from .verb import verb


class LogLevel(StrEnum):
    """Of a server's log."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"


@verb
def serve(
    bundles: Annotated[
        list[str],
        typer.Argument(metavar="BUNDLE...", help="directories, or NAME=DIRECTORY; the first is meant"),
    ],
    host: Annotated[str, typer.Option(help="address to listen on; 0.0.0.0 for other machines")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one")] = 8000,
    api_key_file: Annotated[
        str | None,
        typer.Option(help="keys, one a line; else GRAPHWRIGHT_API_KEY's, else none", show_default=False),
    ] = None,
    threads: Threads = None,
    parallel: Annotated[
        int | None,
        typer.Option(
            min=1, max=256, help="calls at once; one a thread, or 1 of compiled bundles", show_default=False
        ),
    ] = None,
    batch_tokens: Annotated[
        int | None,
        typer.Option(
            min=1, max=1 << 20, help="of a call; 512, or a model's longest text", show_default=False
        ),
    ] = None,
    waiting_tokens: Annotated[
        int, typer.Option(min=1, max=1 << 26, help="that may wait; beyond them 429")
    ] = 1 << 18,
    requests: Annotated[int, typer.Option(min=1, max=1 << 16, help="at once; beyond them 429")] = 512,
    texts: Annotated[int, typer.Option(min=1, max=1 << 20, help="of a request; beyond them 413")] = 2048,
    body_bytes: Annotated[int, typer.Option(min=1, max=1 << 30, help="of a request")] = 2 << 20,
    timeout: Annotated[
        float, typer.Option(min=0.1, max=3600, help="seconds that a body may take and texts may wait")
    ] = 30.0,
    grace: Annotated[float, typer.Option(min=1, max=3600, help="seconds to end in, after SIGTERM")] = 60.0,
    auto_truncate: Annotated[
        bool, typer.Option("--auto-truncate", help="cut long texts where a request doesn't say")
    ] = False,
    dimensions: Annotated[
        str | None,
        typer.Option(
            metavar="64,128", help="widths that the model was trained to be cut to", show_default=False
        ),
    ] = None,
    log_level: Annotated[LogLevel, typer.Option(help="of JSON lines on stderr")] = LogLevel.INFO,
    *,
    console: Console,
) -> None:
    """Serve bundles over HTTP: /embed, /rerank, /predict and OpenAI's /v1/embeddings."""
    from ..verbs import serve as serving

    limits: dict[str, int | float | bool] = {
        "waiting": waiting_tokens,
        "requests": requests,
        "body": body_bytes,
        "bodies": max(64 << 20, body_bytes),
        "texts": texts,
        "seconds": timeout,
        "truncate": auto_truncate,
    }
    serving.serve(
        bundles,
        host,
        port,
        api_key_file,
        threads,
        parallel,
        batch_tokens,
        dimensions,
        limits,
        grace,
        log_level.value,
    )
