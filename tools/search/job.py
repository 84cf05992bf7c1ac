"""The whole job of a search: what its candidates share, the study, the loop, and what comes out."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ...backends.base import Engine
from ...backends.bundles.folder import check_makeable
from ...backends.measuring.effort import QUICK, SEARCH
from ...backends.target import detect, named
from ...backends.tvm.backend import ready
from ...ir.capture import capture
from ...ir.errors import ConfigError, short
from ...ir.footprint import weight_bytes
from ...ir.host.files import why
from ...ir.host.locks import hold
from ...passes.manager.pipeline import Pipeline
from ..build.kept import building
from ..build.preflight import preflight
from ..build.work import Work
from ..config import RunConfig, read, resolve
from ..console import Console
from ..judge.judging import read_calibration, read_data
from .evaluation import MEGABYTE, Evaluation
from .explore import Limits, explore
from .first import first
from .front import Front
from .goal import Goal, goal
from .kept import Kept, best_of
from .narrowed import narrowed
from .space import Space, space
from .structures import PASS
from .study import FILE, Kind, opened
from .tried import Tried
from .watching import Watching

_TIME = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?")
_VERSIONS = ("graphwright", "onnxruntime", "torch", "optuna", "apache-tvm")


@dataclass(frozen=True)
class Order:
    """What a search is asked for, beside the run's settings. budget: as in 2h, 90m or 1h30m, of all trials
    together; None is no limit, where trials are. space: a file that narrows the space. storage: a database's
    URL. best: the objective of which only the best bundle is kept."""

    goal: str
    minimise: str | None = None
    budget: str | None = None
    trials: int | None = None
    space: str | None = None
    sampler: Kind = "tpe"
    storage: str | None = None
    resume: bool = False
    best: str | None = None

    def limits(self) -> Limits:
        """Raises ConfigError for a budget that is none."""
        if self.budget is None:
            return Limits(None if self.trials else 3600.0, self.trials)
        found = _TIME.fullmatch(self.budget.strip())
        parts = [float(part or 0) for part in found.groups()] if found else [0.0] * 3
        seconds = sum(part * unit for part, unit in zip(parts, (3600, 60, 1), strict=True))
        if not seconds:
            raise ConfigError(f"budget: {short(self.budget)} is no time: write one as 2h, 90m or 1h30m")
        return Limits(seconds, self.trials)


@dataclass(frozen=True)
class Searched:
    """The result of a search. record: the content of front.json. front: its members."""

    folder: Path
    goal: Goal
    front: Front
    trials: Sequence[Tried]
    record: Mapping[str, Any]

    @property
    def status(self) -> int:
        """The exit status: 0, 3 where nothing meets the goal."""
        return 0 if self.front.members else 3

    @property
    def failures(self) -> list[str]:
        """A sentence where nothing meets the goal."""
        if self.front.members:
            return []
        nearest = self.front.nearest
        if nearest is None:
            return [f"nothing meets the goal: none of {len(self.trials)} trials could be made and measured"]
        values = ", ".join(
            f"{limit.of.key} is {nearest.values[limit.of.key]:.4g}, {excess:.0%} beyond {limit.most:g}"
            for limit in self.goal.limits
            if (excess := limit.excess(nearest.values)) > 0
        )
        return [
            f"nothing meets the goal; trial {nearest.number} is the nearest, and its bundle is saved: "
            f"{values}"
        ]

    def to_json(self) -> dict[str, Any]:
        return dict(self.record)


class Begun:
    """A model that is captured, lowered and ready to be tried, with the space of its candidates."""

    def __init__(
        self, config: RunConfig, aim: Goal | None, console: Console, source: Any, inputs: Any
    ) -> None:
        if config.target not in (None, "host"):
            raise ConfigError(
                "a search measures what it builds, so it builds for this machine: leave out target"
            )
        if aim and config.shapes is not None:
            config = config.model_copy(
                update={"shapes": tuple(dict.fromkeys((*config.shapes, *aim.workloads)))}
            )
        elif aim and aim.workloads:
            config = config.model_copy(update={"shapes": aim.workloads})
        config = resolve(config.model_copy(update={"preset": None, "pipeline": "to-onnx"}))
        preflight(config.model_copy(update={"pipeline": None, "out": None}), source)
        self.runtimes: tuple[Engine, ...] = (
            ("onnxruntime", "tvm") if config.backend == "auto" else (config.backend,)
        )
        if "tvm" in self.runtimes:
            ready(named("host"))
        console.progress("capturing")
        given = config.model if source is None else source
        program = capture(given, inputs=inputs, model_type=config.model_type)
        for note in program.info.get("notes", ()):
            console.say(note)
        data, texts = read_data(config, program), read_calibration(config, program)
        judged = [Pipeline.parse("store-half")]  # lossy, so that there is a judge
        effort = QUICK if config.quick else SEARCH
        self.console = Watching(console)
        self.work = Work(config, self.console, program, data, judged, texts, effort=effort)
        with building("onnxruntime", self.work.of(config, self.console)) as made:
            self.context = self.work.context(made.evidence())
        self.whole = space(program, self.runtimes, self.context)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the workloads."""
        return tuple(one.name for one in self.work.workloads)


def run(
    config: RunConfig, order: Order, console: Console, source: Any = None, inputs: Any = None
) -> Searched:
    """A search as ordered. source: the model itself where the configuration can only name it.

    Raises:
        GraphwrightError: in one sentence, what can't be; a search that is there stays as it was.
        KeyboardInterrupt: what was tried is kept.
    """
    aim, limits = goal(order.goal, order.minimise), order.limits()
    folder = Path(config.out or "")
    _check(folder, order)
    best_of(aim, order.best)
    if order.space is not None:
        read(order.space)
    begun = Begun(config, aim, console, source, inputs)
    aim = aim.at(begun.names)
    _judgeable(aim, begun.work)
    left = begun.whole if order.space is None else narrowed(begun.whole, order.space)
    identity = _identity(begun, aim, left, order)
    with (
        _held(folder),
        opened(
            folder,
            aim,
            identity,
            sampler=order.sampler,
            seed=config.seed,
            storage=order.storage,
            resume=order.resume,
        ) as study,
    ):
        evaluation = Evaluation(begun.work, aim, begun.console)
        baseline = study.note("baseline", None)
        baseline = study.note("baseline", dict(evaluation.begin(baseline)))
        evaluation.begin(baseline)
        if study.note("begun") is None:
            wanted = PASS in (left.dimensions.get("structure") or ())  # type: ignore[operator]
            for choices in first(left, evaluation.structures.first() if wanted else ()):
                study.propose(choices)
            study.note("begun", True)
        facts = _facts(begun, left, identity, baseline)
        kept = Kept(folder, aim, facts, order.best)
        begun.console.begin(aim, limits)
        try:
            found = explore(study, left, aim, evaluation, kept, limits, begun.console.after)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"what was tried is kept in {folder}, and the same command with --resume goes on from there"
            ) from None
        known = study.tried()
        return Searched(folder, aim, found, known, kept.record(known, found))


def _check(folder: Path, order: Order) -> None:
    """Refuse a folder that holds something else, or that can't be made, before anything is captured."""
    try:
        check_makeable(folder)
    except OSError as error:
        raise ConfigError(f"{folder} can't be written to: {why(error)}") from error
    if order.resume or not folder.exists():
        if order.resume and order.storage is None and not (folder / FILE).is_file():
            raise ConfigError(f"there is no search in {folder} to resume: leave out --resume to begin one")
        return
    if not folder.is_dir():
        raise ConfigError(f"{folder} exists and is no directory; choose another name")
    if (folder / FILE).is_file():
        raise ConfigError(
            f"{folder} holds a search already: --resume goes on with it, or name another folder"
        )
    strange = [
        path for path in folder.iterdir() if not path.name.startswith(f".{FILE}.")
    ]  # a kill leaves those
    if order.storage is None and strange:
        raise ConfigError(f"{folder} exists already and is no search; choose another directory")


def _judgeable(aim: Goal, work: Work) -> None:
    wants = any(one.of.metric == "drop" for one in aim.limits) or any(
        one.metric == "drop" for one in aim.minimise
    )
    if wants and work.judged is None:
        raise ConfigError(f"goal: no drop can be told: {work.unverified or 'there is nothing to judge on'}")


def _identity(begun: Begun, aim: Goal, left: Space, order: Order) -> dict[str, Any]:
    work, here = begun.work, detect()
    judging = work.judging
    processor = here.model or here.arch
    return {
        "model": work.program.fingerprint()[:16],
        "processor": f"{processor}, {here.cores} cores, {' '.join(sorted(here.isa))}",
        "version": ", ".join(f"{name} {found}" for name in _VERSIONS if (found := _version(name))),
        "goal": f"{aim}; {', '.join(one.key for one in aim.minimise)}",
        "space": left.to_json(),
        "sampler": order.sampler,
        "seed": work.config.seed,
        "threads": work.threads,
        "workloads": list(begun.names),
        "quick": work.config.quick,
        "data": [judging.source, judging.rows, len(judging.training)] if judging else [],
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _facts(
    begun: Begun, left: Space, identity: Mapping[str, Any], baseline: Mapping[str, float]
) -> dict[str, Any]:
    work = begun.work
    judging = work.judging
    conditions = {
        name: identity[name] for name in ("processor", "version", "seed", "sampler", "threads", "workloads")
    }
    conditions |= {"target": work.target.to_json()}
    if judging:
        conditions |= {"rows": judging.rows, "source": judging.source}
    return {
        "model": work.config.model,
        "program": work.program.fingerprint(),
        "conditions": conditions,
        "space": left.to_json(),
        "baseline": {f"latency@{name}": ms for name, ms in baseline.items()}
        | {"size": weight_bytes(work.plain) / MEGABYTE, "drop": 0.0},
        "notes": list(work.notes),
    }


@contextmanager
def _held(folder: Path) -> Any:
    """The folder for this process alone. A folder that was made for a search that never began goes."""
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = hold(folder)
    except OSError as error:
        raise ConfigError(f"another search works in {folder}: wait for it, or name another folder") from error
    try:
        yield
    finally:
        if lock is not None:
            os.close(lock)
        if made and not any(folder.iterdir()):
            folder.rmdir()
