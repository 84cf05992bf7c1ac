"""Shared weights by least squares: each linear map and norm as near as one of them comes to what many gave.

What `refit` does for a pruned layer (passes/prune/refit), with one set of unknowns for several layers: their
moments add up. What the later layers are given depends on the solution, so it is gone towards in steps, each
kept only where the outputs come nearer: a quarter of the way at first, further as long as that is well, else
half as far.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ....ir.evaluated import evaluated
from ....ir.fx.graph import attribute, set_attribute
from ....ir.program import Program
from ...manager.contract import Feed
from .seen import Round, uses, write

STEP, GROWTH = 0.25, 1.5  # of a stack of six, half of the way is too far in the first step


def fit(
    student: Program,
    teacher: Program,
    shared: Sequence[str],
    feeds: Sequence[Feed],
    rounds: int,
    progress: Callable[[str, int, int], None],
) -> tuple[list[float], list[str]]:
    """Gives shared parameters their values, in place.

    Args:
        student: fx, with the parameters tied at some start. teacher: as it was before, with the same nodes.
        shared: names of the student's parameters that stand for several.
        rounds: steps that are tried.

    Returns:
        The outputs' distance to the teacher's (|difference|^2 / |outputs|^2) at the start and after each
        step, of which the best is kept; and a sentence for parameters that are no linear map's and no norm's.

    Raises:
        DataError: no rows, or rows that are not finite.
    """
    live, fixed = evaluated(student), evaluated(teacher)
    found, notes = uses(live, set(shared))
    errors: list[float] = []
    best = aims = _values(live, shared)
    step = STEP
    for number in range(rounds + 1):
        progress("fitting shared weights", number, rounds + 1)
        run = Round(live, fixed, feeds, found)
        if run.error < min(errors, default=float("inf")):
            step = min(1.0, step * GROWTH) if errors else step
            best = _values(live, shared)
            for one in run.seen.values():
                write(live.graph, one)
            aims = _values(live, shared)
        else:
            step /= 2
        errors.append(run.error)
        for path in shared:
            _put(live, path, best[path].lerp(aims[path], step if number < rounds else 0.0))
    for path in shared:
        set_attribute(student.graph, path, attribute(live.graph, path))
    if min(errors) == errors[0]:
        notes.append(
            f"no step of {rounds} brought the outputs nearer, so what is shared is the mean: more rounds"
        )
    return errors, notes


def _values(program: Program, paths: Sequence[str]) -> dict[str, torch.Tensor]:
    return {path: attribute(program.graph, path).detach() for path in paths}


def _put(program: Program, path: str, tensor: torch.Tensor) -> None:
    grad = attribute(program.graph, path).requires_grad
    set_attribute(program.graph, path, torch.nn.Parameter(tensor, grad))
