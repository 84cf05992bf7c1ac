"""`optimize push`: its options."""

from __future__ import annotations

from typing import Annotated

import typer

from ..console import Console
from .verb import verb


@verb
def push(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE")],
    repo: Annotated[str, typer.Argument(metavar="OWNER/NAME")],
    licence: Annotated[
        str | None, typer.Option(metavar="SPDX", help="of the model, for its card", show_default=False)
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="where the repository is made now")] = False,
    *,
    console: Console,
) -> None:
    """Put a bundle on the Hugging Face Hub in one commit, with a model card made from its report."""
    from ..pack.hub import push as pushing

    address = pushing(bundle, repo, licence=licence, private=private)
    if console.json:
        console.value({"commit": address})
    else:
        console.show(address)
