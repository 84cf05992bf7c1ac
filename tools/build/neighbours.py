"""Whether the outputs of a finished build depend on the call that a row is in."""

from __future__ import annotations

from ...backends.bundles.feeds import coordinates
from ...backends.running.routed import Nearest
from ...passes.manager.contract import Feed
from ..judge.neighbours import Neighbours, neighbours, of_probes, of_texts
from ..judge.scores import Outputs, Runner
from .building import Build
from .work import Work


def of_build(work: Work, build: Build) -> Neighbours | None:
    """What a finished build does, on the rows that judge it; None where this machine can't run it, or there
    is no row to compare."""
    run = _answers(work, build)
    if run is None:
        return None
    work.console.progress("asking whether neighbours matter")
    program, judging = build.graphs[0].program, work.judging
    if judging is not None and judging.sample:
        calls = of_texts(program, judging.sample, judging.paired, run)
    else:
        calls = of_probes(program, work.config.seed)
    return neighbours(program, calls, run, work.plain, work.threads) if calls.ways else None


def _answers(work: Work, build: Build) -> Runner | None:
    """What answers the calls of the build's bundle."""
    if build.artifact is not None:
        return build.artifact.run if build.contestants else None
    graphs = {each.name: each.program for each in build.graphs}
    program = build.graphs[0].program
    names = [build.dispatch[workload.name] for workload in work.workloads]
    nearest = Nearest([coordinates(program.inputs, w.feed) for w in work.workloads], names, program.inputs)
    sessions: dict[str, Runner] = {}

    def run(feed: Feed) -> Outputs:
        name = nearest(feed) if len(graphs) > 1 else build.graphs[0].name
        if name not in sessions:
            sessions[name] = work.backend.build(graphs[name], threads=work.threads).run
        return sessions[name](feed)

    return run
