"""`optimize tune MODEL`: searches what a build for TVM would be made of, kernel by kernel, here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...backends.bundles.manifest import is_bundle, read_manifest
from ...backends.target import Target, detect
from ...backends.tvm.backend import ready
from ...backends.tvm.tune.tunable import asked, tune_tiles
from ...ir.capture import capture
from ...ir.errors import BundleError
from ...ir.program import Program
from ..build.building_compiled import Compiled
from ..build.preflight import preflight
from ..build.widening import widened
from ..build.work import Work, candidates
from ..config import RunConfig, make, resolve
from ..console import Console
from ..judge.judging import read_calibration, read_data

# Of what a bundle was made with: a build that is not written needs no place and no goal.
_IRRELEVANT = (
    "out", "force", "dump", "reproduce", "bisect", "keep-going", "max-drop", "preset", "target", "backend"
)  # fmt: skip


@dataclass(frozen=True)
class Tuning:
    """What a search found, all of it on record.

    tiles: times as fast as the analytic tile, by kernel and shape, for those searched now. functions: that no
    kernel covers, by the time they take. interrupted: whether the search goes on where it is next time.
    """

    tiles: Mapping[str, float]
    functions: Sequence[Any]
    interrupted: bool = False

    @property
    def status(self) -> int:
        return 130 if self.interrupted else 0

    @property
    def sentence(self) -> str:
        if self.interrupted:
            return "Interrupted; everything timed is kept, and the same command goes on from there."
        return "Builds with --backend tvm use what was found from now on."

    def to_json(self) -> dict[str, Any]:
        return {
            "tiles": {name: round(gain, 4) for name, gain in self.tiles.items()},
            "functions": [asdict(each) for each in self.functions],
            "interrupted": self.interrupted,
        }


def settings_of(model: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run that builds `model` for TVM: those a bundle was made with, then the given ones.

    Raises:
        BundleError: a bundle that does not say what it was made from.
    """
    found: dict[str, Any] = {"model": model}
    if is_bundle(model):
        record = read_manifest(Path(model)).record
        config, pipeline = record.get("config"), record.get("pipeline")
        if not isinstance(config, dict) or not isinstance(pipeline, str):
            raise BundleError(f"{model} does not say what it was made from: name the model itself")
        found = {name: value for name, value in config.items() if name not in _IRRELEVANT}
        found["pipeline"] = pipeline
    chosen = {name: value for name, value in given.items() if value is not None}
    if {"preset", "pipeline"} & chosen.keys():
        found.pop("pipeline", None)
    return {**found, **chosen, "backend": "tvm"}


def tune(settings: Mapping[str, Any], trials: int, console: Console) -> Tuning:
    """Builds as `optimize --backend tvm` does, and searches what it was made of.

    Args:
        settings: of the run; see `settings_of`.
        trials: candidates for each function that no kernel covers, those of earlier runs included.

    Raises:
        GraphwrightError: the model can't be built, or what was found can't be written.
    """
    config = resolve(make(settings))
    ready(detect())
    program, sizes = _built(config, console)
    return search(program, detect(), config.threads or 1, sizes, trials, console, config.seed)


def _built(config: RunConfig, console: Console) -> tuple[Program, Sequence[Mapping[str, int]]]:
    """The program that would be compiled, and the sizes it would be compiled at."""
    given = preflight(config)
    console.progress("capturing")
    program = capture(config.model, model_type=config.model_type)
    wide = widened(program, given, console.progress)
    program, given = wide.program, wide.rest
    data, texts = read_data(config, program), read_calibration(config, program)
    chain = candidates(config, program, given, "tvm")
    work = Work(config, console, program, data, [chain[0]], texts, wide)
    building = Compiled(work)
    with building:
        build = building.best(chain)
        return build.graphs[0].program, building.compiler.sizes


def search(
    program: Program,
    target: Target,
    threads: int,
    sizes: Sequence[Mapping[str, int]],
    trials: int,
    console: Console,
    seed: int = 0,
) -> Tuning:
    """Tiles first: a kernel's tile says how weights are packed. Ctrl-C ends it, and keeps what was found."""
    from ...backends.tvm.build.compile import lower_buckets
    from ...backends.tvm.tune import tuning

    tiles: dict[str, float] = {}
    functions: list[Any] = []
    try:
        with asked() as questions:
            lowered = lower_buckets(program, target, threads, sizes)
        console.say(f"Searching tiles for {len(questions)} shapes")
        for question, gain in tune_tiles(questions, console.progress):
            tiles[str(question)] = gain
        console.say(f"Searching schedules, {trials} candidates for each function that no kernel covers")
        for tuned in tuning.tune(lowered.module, lowered.target, trials, console.progress, seed):
            functions.append(tuned)
    except KeyboardInterrupt:
        return Tuning(tiles, functions, interrupted=True)
    return Tuning(tiles, functions)


def tables(result: Tuning) -> list[Any]:
    """What was found, a row a kernel or function, and what becomes of it."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("", "calls", "tried now", "ms", "times as fast"):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    for name, gain in result.tiles.items():
        table.add_row(name, "", "", "", f"{gain:.2f}")
    for each in result.functions:
        cells = (str(each.calls), str(each.trials), f"{each.ms:.3f}", f"{each.speedup:.2f}")
        table.add_row(each.name, *cells)
    rows = [table] if table.row_count else ["There is nothing to search: every kernel is one of the library."]
    return [*rows, result.sentence]
