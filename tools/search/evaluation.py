"""A candidate made, judged and measured with what `optimize` makes, judges and measures with."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...backends.cache import cache_directory
from ...backends.measuring.decisions import Decisions, Rounds
from ...backends.measuring.measure import Comparison
from ...ir.errors import ConfigError, PassError
from ...passes.manager.contract import Exact
from ...passes.manager.pipeline import Pipeline
from ..build.building import Build, Building
from ..build.kept import building
from ..build.steps import PLAIN
from ..build.widening import Widened
from ..build.work import Work
from ..config import RunConfig
from ..console import Console
from ..finish import concluded, held, saved
from .begun import Begun
from .early import lost
from .goal import MEGABYTE, Goal, Values
from .making import Candidate, Found
from .structures import Structures
from .tried import Tried

_PROTOCOL = 1  # part of every key: raised when the way of measuring changes


@dataclass
class Evaluation:
    """Makes candidates of one model.

    work: what they share. goal: with its workloads. console: where progress inside of a trial shows.
    """

    work: Work
    goal: Goal
    console: Console

    def __post_init__(self) -> None:
        self._decisions = Decisions(cache_directory() / "searched")
        self.structures = Structures(self.work, self.goal)
        self.baseline: Values = {}

    def prepare(self, baseline: Values) -> None:
        """baseline: what `measured` gave when the study began."""
        self.baseline = baseline

    def foretold(self) -> list[tuple[int, ...]]:
        """Structures to begin with."""
        return self.structures.first()

    def measured(self) -> dict[str, float]:
        """Milliseconds of the un-rewritten export by workload, which every candidate's are told by."""
        with building("onnxruntime", self.work.of(self.work.config, self.console)) as made:
            rounds = self._rounds(made, None, (), ())[0]
        return {name: one.ms for name, one in rounds.items()}

    def __call__(self, candidate: Candidate, known: Sequence[Tried]) -> Found:
        """As explore.Evaluate: what is cheap to know comes first."""
        if why := self.structures.hopeless(candidate, known):
            return Found({}, "pruned", why)
        config = self._config(candidate.pipeline, candidate.runtime)
        work = self.work.of(config, self.console)
        began = time.monotonic()
        with building(config.backend, work) as made:  # type: ignore[arg-type]
            build = made.best([candidate.pipeline])
            _whole(build)
            values = {"size": held(work, build)[0] / MEGABYTE}
            if build.candidate.quality is not None:
                values["drop"] = build.candidate.quality.drop
                if why := lost(values["drop"], candidate.choices, known, self.goal):
                    return Found(values, "pruned", why)
            names = tuple(dict.fromkeys(build.dispatch.values()))
            rounds, comparison = self._rounds(made, build, names, tuple(build.dispatch.items()))
        for workload, one in rounds.items():
            ratio = one.speedup.median
            values[f"speedup@{workload}"] = ratio
            values[f"latency@{workload}"] = self.baseline[workload] / ratio
        return Found(values, save=lambda path: self._save(work, build, comparison, began, path))

    def _config(self, pipeline: Pipeline, runtime: str) -> RunConfig:
        limit = next((one.most for one in self.goal.limits if one.of.metric == "drop"), None)
        more = {"preset": None, "pipeline": str(pipeline), "backend": runtime, "max_drop": limit}
        return self.work.config.model_copy(update=more)

    def _rounds(
        self, made: Building, build: Build | None, names: Sequence[str], dispatch: Sequence[tuple[str, str]]
    ) -> tuple[dict[str, Rounds], Comparison | None]:
        """Rounds of the un-rewritten export and of a build (or of the export itself) by workload, from the
        cache where they are there; and the comparison, where one was made."""
        plain = self.work.plain.fingerprint()
        served = dict(dispatch)
        programs = {} if build is None else {each.name: each.program for each in build.graphs}
        conditions = made.evidence().measurer.conditions
        keys = {
            one.name: {
                "search": _PROTOCOL,
                **{name: value for name, value in (conditions or {}).items() if name != "workloads"},
                "workload": (conditions or {}).get("workloads", {}).get(one.name),
                "programs": (plain, programs[served[one.name]].fingerprint() if build else plain),
                "runtime": made.backend,
            }
            for one in self.work.workloads
        }
        found = {name: self._decisions.get(key) for name, key in keys.items()} if conditions else {}
        if found and all(found.values()):
            return {name: one for name, one in found.items() if one}, None
        if build is not None and not build.contestants:
            raise PassError("this machine can't run what is compiled for another, so it can't be timed")
        contestants = {name: build.contestants[name] for name in names} if build else {}
        comparison = made.work.compare(contestants, programs.values() or [self.work.plain])
        rounds = {}
        for workload, key in keys.items():
            base, cell = (comparison.cells[name][workload] for name in (PLAIN, served.get(workload, PLAIN)))
            disturbed = tuple(a or b for a, b in zip(base.disturbed, cell.disturbed, strict=True))
            one = Rounds(base.rounds, cell.rounds, disturbed)
            rounds[workload] = self._decisions.put(key, one) if conditions else one
        return rounds, comparison

    def _save(
        self, work: Work, build: Build, comparison: Comparison | None, began: float, path: Path
    ) -> None:
        if comparison is None:
            comparison = work.compare(dict(build.contestants), [each.program for each in build.graphs])
        config = work.config.model_copy(update={"out": str(path), "force": True})
        wide = Widened(work.program, None)
        outcome = concluded(
            work.of(config, self.console), wide, build, comparison, None, time.monotonic() - began
        )
        saved(outcome, work, build)


def evaluation(
    config: RunConfig, aim: Goal, source: Any, inputs: Any, folder: str, holds: tuple[str, str]
) -> Evaluation:
    """An evaluation in a process of its own, from what a search was asked for.

    Args:
        folder: where the search was started, which its paths are relative to.
        holds: as `Begun.holds` of the search.

    Raises:
        GraphwrightError: the model or the data are not there, or not the search's.
    """
    with suppress(OSError):  # a machine without it may have all the paths that matter
        os.chdir(folder)
    begun = Begun(config, aim, Console(quiet=True), source, inputs)
    if begun.holds != holds:
        raise ConfigError(f"{config.model} or the data of the search is another there")
    return Evaluation(begun.work, aim.at(begun.names), begun.console)


def _whole(build: Build) -> None:
    """Raises PassError where the search's own passes are not all in it: the candidate would be another."""
    for each in build.candidate.steps:
        if each.step.error is not None and not isinstance(each.step.effect, Exact):
            raise PassError(each.step.failure)
