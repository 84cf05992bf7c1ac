"""The whole job: capture, rewrite, measure, choose graphs, judge, bundle. For the command and for Python."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...backends.base import Engine
from ...backends.cache import homeless
from ...ir.capture import capture
from ...ir.errors import GraphwrightError
from ...passes.manager.pipeline import Pipeline
from ..build.building import Build
from ..build.eager import Eager, source_of
from ..build.kept import building, kept
from ..build.outcome import Outcome
from ..build.preflight import preflight
from ..build.widening import widened
from ..build.work import Work, candidates
from ..config import RunConfig, make, resolve
from ..console import Console
from ..finish import concluded, saved
from ..judge.judging import read_calibration, read_data
from ..reports.ahead import Ahead


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
            backend, model_type, force, dump, reproduce, bisect, keep_going, quick: as the options of the same
            names, spelled as there (shapes="1x8,8x8") or in Python's types (shapes=("1x8", "8x8")); see
            `RunConfig`.

    Returns:
        Everything found. `outcome.status` is 0, 1 when a pass was rolled back or refused, 3 when `max_drop`
        is not met.

    Raises:
        GraphwrightError: one sentence on what is wrong with the model, the data or the pipeline.
    """
    name = os.fsdecode(model) if isinstance(model, str | os.PathLike) else type(model).__name__
    model = name if isinstance(model, str | os.PathLike) else model
    wanted = {key.replace("_", "-"): value for key, value in settings.items() if value is not None}
    wanted |= {"model": name} | ({"out": out} if out is not None else {})
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
    recording: bool = False,
) -> Outcome:
    """A run as configured.

    source: the model itself where the configuration can only name it. recording: the outcome is to hold what
    it takes to make the same graphs without measuring.
    """
    began = time.monotonic()
    if "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1:  # torchrun's names
        raise GraphwrightError(
            "optimize times what it builds, and under torchrun several of it would time beside each other: "
            "let torchrun start a script that runs a Pipeline up to to-onnx, and optimize the .onnx it saves"
        )
    config = resolve(config)
    pipeline = preflight(config, source, pipeline)
    if note := homeless():
        console.say(note)
    with ExitStack() as stack:
        ahead = stack.enter_context(Ahead(config.out is not None))
        console.progress("capturing")
        program = capture(
            config.model if source is None else source, inputs=inputs, model_type=config.model_type
        )
        for note in program.info.get("notes", ()):
            console.say(note)
        wide = widened(program, pipeline, console.progress)
        program, pipeline = wide.program, wide.rest
        data, texts = read_data(config, program), read_calibration(config, program)
        backends: tuple[Engine, ...] = (
            ("onnxruntime", "tvm") if config.backend == "auto" else (config.backend,)
        )
        chains = {name: candidates(config, program, pipeline, name) for name in backends}
        loaded = None if config.quick else source_of(program, wide)
        eager = stack.enter_context(Eager(loaded, config.threads or 1))
        first = [chain[0] for chain in chains.values()]
        work = Work(config, console, program, data, first, texts, wide, recording)
        if pipeline is None:
            chains = {name: work.begun(chain, name) for name, chain in chains.items()}
        eager.wait()
        ahead.wait()
        console.say(work.forecast([chain[0] for chain in chains.values()]))
        builds = list(_builds(work, chains, stack))
        comparison = work.compare(
            {name: each for build in builds for name, each in build.contestants.items()},
            [graph.program for build in builds for graph in build.graphs],
            eager.start,
        )
        build, other = kept(builds, comparison)
        outcome = concluded(work, wide, build, comparison, other, time.monotonic() - began)
    if config.out is None:
        return outcome
    return replace(outcome, bundle=saved(outcome, work, build))


def _builds(work: Work, chains: Mapping[Engine, Sequence[Pipeline]], stack: ExitStack) -> Iterator[Build]:
    """The best candidate of every backend; where there are two, one may fail."""
    for name, chain in chains.items():
        try:
            yield stack.enter_context(building(name, work)).best(chain)
        except GraphwrightError as error:
            if name != "tvm" or len(chains) == 1:
                raise
            sentence = f"there is no build for {name}: {error}"
            work.console.say(sentence)
            work.notes.append(sentence)
