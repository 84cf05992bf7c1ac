"""Builds for each backend, and which is kept: the fastest of those that meet the goal."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ...backends.base import Engine
from ...backends.measuring.measure import Comparison
from .building import Build, Building
from .building_compiled import Compiled
from .building_graphs import Graphs
from .steps import Other
from .work import Work


def building(backend: Engine, work: Work) -> Building:
    """That of a backend; TVM loads only where it is asked for."""
    if backend == "tvm":
        return Compiled(work)
    return Graphs(work)


def kept(builds: Sequence[Build], comparison: Comparison) -> tuple[Build, Other | None]:
    """The build to write, and what is to be said of the other.

    A build that misses the quality goal is kept only where none meets it; then the one that loses least.
    """
    if len(builds) == 1:
        return builds[0], None
    least = min(build.candidate.drop for build in builds)
    wanted = [build for build in builds if build.met is not False] or [
        build for build in builds if build.candidate.drop == least
    ]
    best = min(wanted, key=lambda build: _mean_log(build, comparison))
    other = next(build for build in builds if build is not best)
    ratio = math.exp(_mean_log(other, comparison) - _mean_log(best, comparison))
    pipeline = str(other.candidate.pipeline)
    return best, Other(other.backend, pipeline, other.dispatch, ratio, other.candidate.quality, other.met)


def _mean_log(build: Build, comparison: Comparison) -> float:
    """The mean of the logarithms of its times over the workloads."""
    logs = [math.log(comparison.cells[graph][work].ms) for work, graph in build.dispatch.items()]
    return sum(logs) / len(logs)
