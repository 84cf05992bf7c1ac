"""What each precision of each unit costs: seconds, measured, and bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ....ir.onnx.profile import profile
from ....ir.program import Program
from ...manager.contract import Feed
from ..report.layer import origin
from .units import PRECISIONS, Precision, Unit, assign

Costs = list[dict[Precision, float]]


def variants(
    program: Program, chosen: Sequence[Unit], limit: int, sources: frozenset[str]
) -> dict[Precision, Program]:
    """The program with every unit in one precision, as far as each may take it."""
    made: dict[Precision, Program] = {"float": program}
    for precision in PRECISIONS[1:]:
        made[precision] = program.clone()
        everywhere = [precision if precision in unit.precisions else "float" for unit in chosen]
        assign(made[precision], chosen, everywhere, limit, sources)
    return made


def seconds(made: Mapping[Precision, Program], chosen: Sequence[Unit], feed: Feed, threads: int) -> Costs:
    """The time of each unit's kernels by precision, on one call: those that read its weights, and its share
    of those that quantize its activation."""
    found: Costs = [{} for _ in chosen]
    of_weight = {name: number for number, unit in enumerate(chosen) for name in unit.weights}
    for precision, program in made.items():
        readers: dict[str, set[int]] = {}
        own = [0.0] * len(chosen)
        timed = profile(program.graph, feed, threads)
        for kernel, taken in timed:
            sources = (origin(name, of_weight) for name in kernel.inputs if name)
            reached = {of_weight[name] for name in sources if name is not None}
            for number in reached:
                own[number] += taken / len(reached)
            for name in kernel.inputs:
                readers.setdefault(name, set()).update(reached)
        for kernel, taken in timed:
            if kernel.op_type in ("DynamicQuantizeLinear", "QuantizeLinear"):
                users = readers.get(kernel.outputs[0], set())
                for number in users:
                    own[number] += taken / len(users)
        for number, unit in enumerate(chosen):
            if precision in unit.precisions:
                found[number][precision] = own[number]
    return found


def bytes_of(made: Mapping[Precision, Program], chosen: Sequence[Unit]) -> Costs:
    """The bytes of each unit's weights by precision, scales and zeros included."""
    found: Costs = [dict.fromkeys(unit.precisions, 0.0) for unit in chosen]
    of_weight = {name: number for number, unit in enumerate(chosen) for name in unit.weights}
    for precision, program in made.items():
        for name, value in program.graph.graph.initializers.items():
            source = origin(str(name), of_weight)
            if source is not None and value.const_value is not None:
                number = of_weight[source]
                if precision in found[number]:
                    found[number][precision] += value.const_value.nbytes
    return found
