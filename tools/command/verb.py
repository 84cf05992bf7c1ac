"""What every command shares: a console, an exit status, and one sentence for an error."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import typer

from ..console import Console, complain, sentence
from .shared import Debug, Json, Quiet


def verb(function: Callable[..., int | None]) -> Callable[..., None]:
    """Turn what a verb returns or raises into an exit status and at most one sentence on stderr.

    The verb gets a Console in place of the options --quiet and --json, which every verb has with --debug.
    """
    shared = [
        inspect.Parameter("quiet", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Quiet),
        inspect.Parameter("as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Json),
        inspect.Parameter("debug", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Debug),
    ]
    signature = inspect.signature(function, eval_str=True)
    own = [parameter for name, parameter in signature.parameters.items() if name != "console"]

    @functools.wraps(function)
    def run(*args: Any, quiet: bool, as_json: bool, debug: bool, **kwargs: Any) -> None:
        console = Console(quiet=quiet, json=as_json)
        try:
            with console.working():
                status = function(*args, console=console, **kwargs) or 0
        except KeyboardInterrupt as stop:
            complain(f"optimize: interrupted; {stop or 'nothing was written'}")
            status = getattr(stop, "status", 130)
        except (typer.Exit, typer.Abort, typer.BadParameter):
            raise
        except Exception as error:
            if debug:
                raise
            complain(f"optimize: {sentence(error)}")
            status = 1
        raise typer.Exit(status)

    run.__signature__ = signature.replace(parameters=[*own, *shared])  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in [*own, *shared]}
    return run
