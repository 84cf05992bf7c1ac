"""Where the time of one call goes, block by block, before and after: from ONNX Runtime's own profile."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from ...backends.measuring.workloads import Workload, fitting
from ...ir.footprint import weight_bytes
from ...ir.onnx.profile import profile
from ...ir.program import Program
from .building import Build
from .stages import Stages
from .work import HUGE, Work


def spent(work: Work, build: Build) -> dict[str, Any] | None:
    """What a call takes in each block: of the first workload that runs something else than the export.

    Returns:
        workload; before, after: [{"block": "attention 0" or "", "ms"}], in the order of the graph. None where
        there is no such workload, where it is not ONNX Runtime that runs, or where the model is large.
    """
    known = build.backend == "onnxruntime" and build.candidate.blocks
    if not known or weight_bytes(work.plain) > HUGE:
        return None
    graphs = {variant.name: variant.program for variant in build.graphs}
    for workload in work.workloads:
        graph = graphs[build.dispatch[workload.name]]
        if graph is not work.plain:
            break
    else:
        return None
    plain = Stages()
    plain.add("", work.plain)
    try:
        before = _by_block(work.plain, plain.blocks, workload, work.threads)
        after = _by_block(graph, build.candidate.blocks, workload, work.threads)
    except Exception as error:  # it was timed all the same, and is told without its blocks
        work.notes.append(
            f"where the time goes is not known: {type(error).__name__}: {error}".splitlines()[0]
        )
        return None
    return {"workload": workload.name, "before": before, "after": after}


def _by_block(
    program: Program, blocks: Mapping[str, str], workload: Workload, threads: int
) -> list[dict[str, Any]]:
    """A kernel belongs where its result does, or else where something that reads it does."""
    taken: defaultdict[str, float] = defaultdict(float)
    given = fitting(workload.feed, [program])
    feed = {spec.name: given[spec.name] for spec in program.inputs}
    for kernel, seconds in profile(program.graph, feed, threads):
        near = (blocks.get(name, "") for name in (*kernel.outputs, *kernel.inputs))
        taken[next(filter(None, near), "")] += seconds
    order = {block: number for number, block in enumerate(dict.fromkeys(blocks.values()))}
    inside = sorted(taken, key=lambda block: (not block, order.get(block, 0)))
    return [{"block": block, "ms": 1e3 * taken[block]} for block in inside]
