"""`optimize pack`: its options."""

from __future__ import annotations

from typing import Annotated

import typer

from ..console import Console
from ..pack.formats import Format
from .shared import Force
from .verb import verb


@verb
def pack(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE")],
    format: Annotated[
        Format, typer.Option("--format", help="an archive, a wheel with a load() of its own, an image")
    ] = Format.TAR,
    out: Annotated[str, typer.Option("-o", "--out", help="directory that the file appears in")] = ".",
    name: Annotated[
        str | None, typer.Option(help="of the package, instead of BUNDLE's", show_default=False)
    ] = None,
    version: Annotated[
        str | None, typer.Option(help="of the package; by default what is in it decides", show_default=False)
    ] = None,
    licence: Annotated[
        str | None, typer.Option(metavar="SPDX", help="of the model, for the SBOM", show_default=False)
    ] = None,
    runner: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="of optimize runner, for an image; else one is built", show_default=False
        ),
    ] = None,
    force: Force = False,
    *,
    console: Console,
) -> None:
    """Pack a bundle into one file, with an SBOM and licences; the same bundle gives the same bytes."""
    from ..verbs import pack as packing

    labels = {"name": name, "version": version, "licence": licence}
    found = packing.pack(bundle, format, out, **labels, runner=runner, force=force)
    if console.json:
        console.value(packing.to_json(found))
    else:
        console.show(packing.sentence(found))
