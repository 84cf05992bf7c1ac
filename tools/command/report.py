"""`optimize report`: its options."""

from __future__ import annotations

from typing import Annotated

import typer

from ..console import Console
from .shared import Force, number
from .verb import verb


@verb
def report(
    bundles: Annotated[list[str], typer.Argument(metavar="BUNDLE...", help="several make a comparison")],
    form: Annotated[
        str | None,
        typer.Option("--format", help="html, md, json or csv; else as FILE ends", show_default=False),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            "-o", "--out", metavar="FILE", help="else stdout; a page: report.html", show_default=False
        ),
    ] = None,
    grid: Annotated[
        float | None,
        typer.Option(
            callback=lambda value: value if value is None else number(value),
            metavar="GRAMS",
            help="of CO2 a kWh of your grid: tells the CO2 of energy that was measured",
            show_default=False,
        ),
    ] = None,
    force: Force = False,
    *,
    console: Console,
) -> None:
    """Make a page, or rows for other programs, of what BUNDLEs say of themselves."""
    from ...backends.bundles.manifest import PAGE
    from ..verbs import report as reporting

    form = "json" if console.json else reporting.chosen(form, out)
    text = reporting.report(bundles, form, grid)
    if out is None and form != "html":
        console.text(text)
        return
    path = reporting.written(text, out or PAGE, force)
    console.say(f"{path} is ready: open it in a browser" if form == "html" else f"{path} is ready")
