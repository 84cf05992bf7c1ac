"""Options that several commands have, and what they do alike."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ..console import Console, complain
from ..options import OPTIONS

Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="directory, hub id, .onnx or .pt2", show_default=False)
]
Threads = Annotated[int | None, OPTIONS["threads"].__metadata__[0]]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="of everything random")]
Shapes = Annotated[str | None, OPTIONS["shapes"].__metadata__[0]]
Json = Annotated[bool, typer.Option("--json", help="one JSON value on stdout and nothing else there")]
ModelType = Annotated[str | None, OPTIONS["model_type"].__metadata__[0]]
Force = Annotated[bool, OPTIONS["force"].__metadata__[0]]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="print errors only")]
Debug = Annotated[bool, typer.Option("--debug", help="show the traceback of an error")]


def number(value: float) -> float:
    """An option's value. Raises BadParameter where it is below 0 or endless."""
    if not 0 <= value < float("inf"):
        raise typer.BadParameter("write a number from 0")
    return value


def text_column(columns: str | None) -> str | None:
    """What --columns calls a file's texts, as in text=sentence."""
    return dict(part.split("=", 1) for part in columns.split(",")).get("text") if columns else None


def shown(outcome: Any, console: Console) -> int:
    """Print what a run came to; its exit status."""
    from .. import report

    if console.json:
        console.value(outcome.to_json())
    else:
        console.show(*report.tables(outcome))
    for failure in outcome.failures:
        complain(f"optimize: {failure}")
    return outcome.status
