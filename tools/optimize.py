"""The whole job: capture, rewrite, measure, choose graphs, judge, bundle. For the command and for Python."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..backends.bundle import route, write
from ..backends.folder import check_free
from ..backends.target import named
from ..backends.workloads import Workload
from ..ir.capture import capture
from ..passes.manager import Pipeline
from . import report
from .config import RunConfig, make, resolve
from .console import Console
from .judging import read_calibration, read_data
from .outcome import Outcome
from .work import Work, candidates


def optimize(
    model: Any,
    out: str | Path | None = None,
    *,
    inputs: Any = None,
    pipeline: str | Pipeline | None = None,
    quiet: bool = True,
    **settings: Any,
) -> Outcome:
    """Optimise a model for this machine and, with `out`, write a bundle.

    Args:
        model: an nn.Module (with `inputs`), a Hugging Face directory or hub id, an .onnx or .pt2 file.
        out: the bundle's directory; None writes nothing.
        inputs: example inputs of an nn.Module.
        pipeline: passes instead of a preset.
        quiet: False prints progress on stderr.
        settings: preset, data, calibrate, task, columns, samples, max_drop, threads, shapes, seed, target,
            force, dump, keep_going: as the command's options of the same names; see `RunConfig`.

    Returns:
        Everything found. `outcome.status` is 0, 1 when a pass was rolled back, 3 when `max_drop` is not met.

    Raises:
        GraphwrightError: one sentence on what is wrong with the model, the data or the pipeline.
    """
    name = str(model) if isinstance(model, str | Path) else type(model).__name__
    wanted = {key.replace("_", "-"): value for key, value in settings.items() if value is not None}
    wanted |= {"model": name} | ({"out": str(out)} if out is not None else {})
    wanted |= {"pipeline": str(pipeline)} if pipeline is not None else {}
    config = make(wanted)
    given = pipeline if isinstance(pipeline, Pipeline) else None
    return run(config, Console(quiet=quiet), model, inputs, given)


def run(
    config: RunConfig,
    console: Console,
    source: Any = None,
    inputs: Any = None,
    pipeline: Pipeline | None = None,
) -> Outcome:
    """A run as configured. source: the model itself where the configuration can only name it."""
    began = time.monotonic()
    config = resolve(config)
    if config.out:
        check_free(Path(config.out), config.force)
    if pipeline is None and config.pipeline is not None:
        pipeline = Pipeline.parse(config.pipeline)
    console.progress("capturing")
    program = capture(config.model if source is None else source, inputs=inputs)
    data, texts = read_data(config, program), read_calibration(config, program)
    wanted = candidates(config, program, pipeline)
    with Work(config, console, program, data, wanted[0], texts) as work:
        candidate, met = work.best(wanted)
        dispatch, graphs = work.dispatch(candidate)
        comparison = work.compare(graphs)
        sums = work.portability(graphs)
    outcome = Outcome(
        config=config,
        source=program,
        pipeline=str(candidate.pipeline),
        steps=candidate.steps,
        graphs=graphs,
        dispatch=dispatch,
        comparison=comparison,
        portability=sums,
        layers=candidate.layers,
        quality=candidate.quality,
        met=met,
        notes=tuple(work.notes),
        seconds=time.monotonic() - began,
    )
    if config.out is None:
        return outcome
    return replace(outcome, bundle=_write(outcome, work.workloads))


def _write(outcome: Outcome, workloads: Sequence[Workload]) -> Path:
    """The bundle, with the evidence in its manifest and report."""
    assert outcome.config.out is not None
    default = outcome.graphs[0].program
    routes = [
        route(workload.name, default, workload.feed, outcome.dispatch[workload.name])
        for workload in workloads
    ]
    more = {"seed": outcome.config.seed, "target": named(outcome.config.target or "host").to_json()}
    return write(
        outcome.config.out,
        outcome.graphs,
        routes,
        manifest=outcome.to_json() | more,
        report=report.markdown(outcome),
        threads=outcome.config.threads,
        force=outcome.config.force,
    )
