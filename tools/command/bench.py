"""`optimize bench`: its options."""

from __future__ import annotations

from typing import Annotated

import typer

from ..console import Console
from .shared import Seed, Shapes, Threads
from .verb import verb


@verb
def bench(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL...", help="bundles, ONNX files and model directories")
    ],
    shapes: Shapes = None,
    threads: Threads = None,
    seed: Seed = 0,
    isa: Annotated[
        bool, typer.Option("--isa", help="also say on which instruction sets int8 sums are right")
    ] = False,
    rpc: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT", help="TVM RPC tracker: time tvm bundles on --device", show_default=False
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="of the machine that the tracker lends", show_default=False),
    ] = None,
    *,
    console: Console,
) -> None:
    """Time models side by side; each ratio is against the first."""
    from ...backends.measuring.workloads import names_in
    from ...backends.target import check_threads
    from ..verbs import bench as benching

    if threads is not None and rpc is None:
        check_threads(threads)
    names = None if shapes is None else names_in(shapes)
    if (rpc is None) != (device is None):
        raise typer.BadParameter("write both --rpc HOST:PORT and --device KEY, or neither")
    if rpc and device:
        result = benching.bench_remotely(models, names, threads, seed, console, rpc, device)
    else:
        result = benching.bench(models, names, threads, seed, console, isa)
    if console.json:
        console.value(result.to_json())
    else:
        console.show(*benching.tables(result))
