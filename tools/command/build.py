"""`optimize build`: its options."""

from __future__ import annotations

from typing import Annotated

import typer

from ..console import Console
from .verb import verb


@verb
def build(
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="FILE", help="YAML: models x targets x goals, or one run's settings", show_default=False
        ),
    ] = None,
    out: Annotated[str, typer.Option("-o", "--out", help="directory for the bundles")] = "dist",
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="of a build, model, target or goal, * for anything; may be repeated",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print what would be built and stop")] = False,
    frozen: Annotated[
        bool,
        typer.Option("--frozen", help="rebuild the lock's bytes, measure nothing; refuse changed inputs"),
    ] = False,
    again: Annotated[bool, typer.Option("--again", help="measure anew although nothing has changed")] = False,
    gate: Annotated[
        bool, typer.Option("--gate", help="fail where a build became slower, larger or worse beyond noise")
    ] = False,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="LOCK", help="hold builds against it; the last lock by default", show_default=False
        ),
    ] = None,
    lock: Annotated[
        str | None, typer.Option(metavar="LOCK", help="FILE with .lock by default", show_default=False)
    ] = None,
    junit: Annotated[
        str | None, typer.Option(metavar="XML", help="write JUnit XML there", show_default=False)
    ] = None,
    summary: Annotated[
        str | None, typer.Option(metavar="MD", help="write a Markdown summary there", show_default=False)
    ] = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="print the file's JSON schema, for editors, and stop")
    ] = False,
    *,
    console: Console,
) -> int:
    """Build many models for many targets from one file; what is unchanged is left as it is."""
    if schema:
        from ..deploy.schema import printed_schema

        console.text(printed_schema())
        return 0
    if file is None:
        raise typer.BadParameter("name the FILE to build from (--schema prints what it may hold)")
    from ..deploy import command

    if dry_run:
        return command.dry_run(file, only or (), console)
    told = {"frozen": frozen, "again": again, "gate": gate}
    return command.build(file, out, only or (), lock, against, (junit, summary), console, **told)
