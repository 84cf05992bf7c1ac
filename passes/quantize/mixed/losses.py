"""How much each precision of each unit alone loses: on outputs, on the user's metric, or by Hessian."""

from __future__ import annotations

import numpy as np

from ....ir.errors import PipelineError
from ....ir.execute import execute
from ....ir.inputs.probe import probes
from ....ir.program import Program
from ...common.texts import read_alike
from ...manager.contract import Context
from ..codes import stored
from ..fit.coding import without_data
from ..int8.sensitivity import distance, some
from ..int8.weights import quantize
from .units import SCHEME, Precision, Unit, assign

Losses = list[dict[Precision, float]]


def by_cosine(
    program: Program, chosen: list[Unit], limit: int, sources: frozenset[str], context: Context
) -> Losses:
    """1 - mean cosine between the rows of the outputs, with and without.

    Raises:
        DataError: there is no finite row to compare.
    """
    feeds = some(context.calibration or probes(program, context.seed))
    reference = execute(program, feeds, context.threads)

    def loss(variant: Program) -> float:
        return distance(program, feeds, reference, execute(variant, feeds, context.threads))

    return _alone(program, chosen, limit, sources, context, loss)


def by_score(
    program: Program, chosen: list[Unit], limit: int, sources: frozenset[str], context: Context
) -> Losses:
    """Points of the user's metric."""
    assert context.score is not None
    score = context.score
    whole = score(program)
    return _alone(program, chosen, limit, sources, context, lambda variant: whole - score(variant))


def _alone(program, chosen, limit, sources, context, loss) -> Losses:
    found: Losses = []
    total = sum(len(unit.precisions) - 1 for unit in chosen)
    done = 0
    for number, unit in enumerate(chosen):
        found.append({"float": 0.0})
        for precision in unit.precisions[1:]:
            context.progress("measuring what each layer loses", done, total)
            variant = program.clone()
            plan: list[Precision] = ["float"] * len(chosen)
            plan[number] = precision
            assign(variant, chosen, plan, limit, sources)
            found[-1][precision] = max(0.0, loss(variant))
            done += 1
    return found


def by_hessian(
    program: Program, chosen: list[Unit], limit: int, sources: frozenset[str], context: Context
) -> Losses:
    """Half of trace / size times the squared error of the numbers (HAWQ-V2, Dong et al., 2020,
    arXiv:1911.03852, section 3.1), summed over a unit's weights.

    Raises:
        PipelineError: a weight is none of the original's, so that it has no Hessian, or the original reads
            texts by another tokenizer.
    """
    from .hessian import traces

    assert context.original is not None
    if not read_alike(context.original, program):
        raise PipelineError(
            "quantize-mixed takes Hessians of the captured model, which reads texts by another tokenizer: "
            "choose by=cosine"
        )
    known = {str(node.target) for node in context.original.graph.graph.nodes if node.op == "get_attr"}
    names = [name for unit in chosen for name in unit.weights]
    for name in names:
        if name not in known:
            raise PipelineError(
                f"quantize-mixed finds no Hessian for '{name}', which is no weight of the captured model: "
                "put it before the passes that merge weights, or choose by=cosine"
            )
    feeds = some(context.calibration or probes(context.original, context.seed))
    trace = traces(context.original, feeds, names, seed=context.seed)
    weights = {each.name: each for each in stored.find(program)[0]}
    found: Losses = []
    for unit in chosen:
        loss: dict[Precision, float] = dict.fromkeys(unit.precisions, 0.0)
        for name in unit.weights:
            held = weights[name]
            matrix = held.matrix()
            mean = trace[name] / matrix.size
            codes, scales = quantize(matrix.T, limit, name)
            loss["int8"] += 0.5 * mean * float(np.square(matrix.T - codes * scales, dtype=np.float64).sum())
            if "int4" in loss:
                coded = without_data(held, "rtn", SCHEME).floats()
                loss["int4"] += 0.5 * mean * float(np.square(matrix - coded, dtype=np.float64).sum())
        found.append(loss)
    return found
