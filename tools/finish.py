"""A build as the outcome of a run, and its bundle."""

from __future__ import annotations

import json
from pathlib import Path

from ..backends.bundles.bundle import route, write
from ..backends.bundles.finished import versions
from ..backends.bundles.manifest import PAGE
from ..backends.measuring.measure import Comparison
from ..backends.target import named
from ..backends.tvm.run.artifact import write_compiled
from ..backends.tvm.run.versions import PINS
from ..ir.fingerprint import tensor_digest
from ..ir.footprint import weight_bytes
from . import report
from .build.building import Build
from .build.neighbours import of_build
from .build.outcome import Outcome
from .build.spent import spent
from .build.steps import Other
from .build.verdict import closing
from .build.widening import Widened
from .build.work import Work
from .reports.page import page
from .reports.reading import STAGES


def concluded(
    work: Work, wide: Widened, build: Build, comparison: Comparison, other: Other | None, seconds: float
) -> Outcome:
    """What a run found.

    Args:
        comparison: of the build with what the user would otherwise run. other: the build that was not kept.
        seconds: that the run took.
    """
    graphs = build.graphs if build.backend == "onnxruntime" else ()
    return Outcome(
        config=work.config,
        source=work.program,
        pipeline=wide.whole(build.candidate.pipeline),
        steps=(*wide.steps, *build.candidate.steps),
        graphs=build.graphs,
        dispatch=build.dispatch,
        comparison=comparison,
        portability=work.portability(graphs),
        layers=build.candidate.layers,
        quality=build.candidate.quality,
        met=build.met,
        notes=tuple(work.notes),
        seconds=seconds,
        backend=build.backend,
        other=other,
        unverified=_unverified(work, build, wide),
        weight_bytes=held(work, build),
        neighbours=of_build(work, build),
        replay=build.candidate.replay,
    )


def _unverified(work: Work, build: Build, wide: Widened) -> tuple[str, ...]:
    """What nobody could verify of the build: promises of its passes, and its quality."""
    steps = [each.step for each in (*wide.steps, *build.candidate.steps) if each.graphs != ()]
    return tuple(dict.fromkeys(each for each in (work.unverified, *(s.unverified for s in steps)) if each))


def held(work: Work, build: Build) -> tuple[int, int]:
    """Bytes of the weights of a build's graphs, which share those that are equal, and of the model's."""
    if len(build.graphs) == 1:
        return weight_bytes(build.graphs[0].program), weight_bytes(work.plain)
    values = [v for each in build.graphs for v in each.program.graph.graph.initializers.values()]
    together = {
        tensor_digest(v.const_value): v.const_value.nbytes for v in values if v.const_value is not None
    }
    return sum(together.values()), weight_bytes(work.plain)


def saved(outcome: Outcome, work: Work, build: Build) -> Path:
    """Writes the bundle where its configuration says, with the evidence in manifest and reports."""
    assert outcome.config.out is not None
    record = {
        **outcome.to_json(),
        "seed": outcome.config.seed,
        "target": named(outcome.config.target or "host").to_json(),
        "verdict": closing(outcome),
        "profile": spent(work, build),
        "texts": work.lengths,
    }
    artifact, stages = build.artifact, build.candidate.stages
    makers = tuple(PINS) if artifact is not None else ()
    pages = {PAGE: page({**record, "versions": versions(makers)}, stages)}
    if stages:
        pages[STAGES] = json.dumps(stages, ensure_ascii=False, separators=(",", ":"))
    if artifact is not None:
        return write_compiled(
            outcome.config.out,
            artifact,
            manifest=record,
            report=report.markdown(outcome),
            pages=pages,
            force=outcome.config.force,
        )
    default = outcome.graphs[0].program
    routes = [
        route(workload.name, default, workload.feed, outcome.dispatch[workload.name])
        for workload in work.workloads
    ]
    return write(
        outcome.config.out,
        outcome.graphs,
        routes,
        manifest=record,
        report=report.markdown(outcome),
        pages=pages,
        threads=outcome.config.threads,
        force=outcome.config.force,
    )
