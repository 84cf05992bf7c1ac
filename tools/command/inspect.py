"""`optimize inspect`: its options."""

from __future__ import annotations

from typing import Annotated

import typer

from ..console import Console
from .shared import Model, ModelType, Shapes, Threads
from .verb import verb


@verb
def inspect_model(
    model: Model,
    quant: Annotated[
        bool, typer.Option("--quant", help="of a bundle: what quantization did to each layer, worst first")
    ] = False,
    shapes: Shapes = None,
    threads: Threads = None,
    untimed: Annotated[bool, typer.Option("--untimed", help="leave the clock out")] = False,
    model_type: ModelType = None,
    *,
    console: Console,
) -> None:
    """Say what MODEL is made of, what its blocks cost, and what was not recognised and why."""
    if quant:
        from ...passes.quantize.report.layer import to_json
        from ..verbs import inspect_quant

        layers = inspect_quant.rows(model)
        if console.json:
            console.value(to_json(layers))
        else:
            console.show(inspect_quant.table(layers))
        return
    from ..verbs import inspect_variants

    if (several := inspect_variants.manifest_of(model)) is not None:
        if console.json:
            console.value(inspect_variants.to_json(several))
        else:
            console.show(*inspect_variants.tables(model, several))
        return
    from ...backends.target import check_threads
    from ..verbs import inspect_costs
    from ..verbs import inspect_model as inspection

    if threads is not None:
        check_threads(threads)
    found = inspection.inspect(model, model_type)
    costs = inspect_costs.costs(found.program, shapes, threads, not untimed)
    if console.json:
        console.value({**found.to_json(), "costs": costs.to_json()})
    else:
        console.show(*inspection.tables(found), *inspect_costs.tables(costs))
