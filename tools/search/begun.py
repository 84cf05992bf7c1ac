"""What is made once for all candidates of a model, and what a study of them holds for."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from ...backends.base import Engine
from ...backends.measuring.effort import QUICK, SEARCH
from ...backends.target import named
from ...backends.tvm.backend import ready
from ...ir.capture import capture
from ...ir.errors import ConfigError
from ...ir.footprint import weight_bytes
from ...passes.manager.pipeline import Pipeline
from ..build.kept import building
from ..build.preflight import preflight
from ..build.work import Work
from ..config import RunConfig, resolve
from ..console import Console
from ..judge.judging import read_calibration, read_data
from .goal import MEGABYTE, Goal
from .space import Space, space
from .versions import processor, versions
from .watching import Watching


class Begun:
    """A model that is captured, lowered and ready to be tried.

    work: what candidates share. whole: the space of them. rows: the digest of the data.

    Args:
        aim: the goal, whose workloads are measured; None where nothing will be.

    Raises:
        GraphwrightError: the run can't be, or the model can't be captured.
    """

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
        runtimes: tuple[Engine, ...] = (
            ("onnxruntime", "tvm") if config.backend == "auto" else (config.backend,)
        )
        if "tvm" in runtimes:
            ready(named("host"))
        console.progress("capturing")
        given = config.model if source is None else source
        program = capture(given, inputs=inputs, model_type=config.model_type)
        for note in program.info.get("notes", ()):
            console.say(note)
        data, texts = read_data(config, program), read_calibration(config, program)
        judged = [Pipeline.parse("store-half")]  # lossy, so that there is a judge
        rows = repr([each and each.rows for each in (data, texts)]).encode()
        self.rows = hashlib.blake2b(rows, digest_size=8).hexdigest()
        effort = QUICK if config.quick else SEARCH
        self.console = Watching(console)
        self.work = Work(config, self.console, program, data, judged, texts, effort=effort)
        with building("onnxruntime", self.work.of(config, self.console)) as made:
            self.whole = space(program, runtimes, self.work.context(made.evidence()))

    @property
    def holds(self) -> tuple[str, str]:
        """What must be the same on every machine: digests of the model and the data."""
        return self.work.program.fingerprint(), self.rows

    @property
    def names(self) -> tuple[str, ...]:
        """Of the workloads."""
        return tuple(one.name for one in self.work.workloads)


def identity(begun: Begun, aim: Goal, left: Space, sampler: str) -> dict[str, Any]:
    """What a study's numbers hold for, by what a person would call it."""
    work = begun.work
    judging = work.judging
    return {
        "model": work.program.fingerprint()[:16],
        "processor": processor(),
        "version": versions(),
        "goal": f"{aim}; {', '.join(one.key for one in aim.minimise)}",
        "space": left.to_json(),
        "sampler": sampler,
        "seed": work.config.seed,
        "threads": work.threads,
        "workloads": list(begun.names),
        "quick": work.config.quick,
        "data": [judging.source, begun.rows] if judging else [],
    }


def facts(
    begun: Begun, left: Space, held: Mapping[str, Any], baseline: Mapping[str, float]
) -> dict[str, Any]:
    """What front.json says beside trials and front. held: the study's identity."""
    work = begun.work
    judging = work.judging
    conditions = {
        name: held[name] for name in ("processor", "version", "seed", "sampler", "threads", "workloads")
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
