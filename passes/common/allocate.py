"""One precision for each layer, so that little is lost and a budget is kept: a multiple-choice knapsack.

Q-BERT and HAWQ-V2 rank layers by sensitivity; HAWQ-V3 (Yao et al., 2021, arXiv:2011.10680, section 3.4)
solves this integer program, as here, with a solver for mixed-integer linear programs.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

import numpy as np

Choice = TypeVar("Choice", bound=Hashable)


def allocate(
    losses: Sequence[Mapping[Choice, float]], costs: Sequence[Mapping[Choice, float]], budget: float
) -> list[Choice] | None:
    """The choice for each layer with the least sum of losses whose costs add up to at most the budget.

    Args:
        losses, costs: by choice, for each layer; the same choices in both.

    Returns:
        None where even the cheapest choices cost more.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp

    if sum(min(cost.values()) for cost in costs) > budget:
        return None
    pairs = [(number, choice) for number, loss in enumerate(losses) for choice in loss]
    loss = np.array([losses[number][choice] for number, choice in pairs])
    cost = np.array([costs[number][choice] for number, choice in pairs])
    once = np.array([[float(n == number) for n, _ in pairs] for number in range(len(losses))])
    # Scaled to about 1: the solver's tolerances are absolute.
    unit = max(float(np.abs(loss).max(initial=0)), np.finfo(float).tiny)
    limits = [LinearConstraint(once, 1, 1), LinearConstraint(cost[None] / budget, ub=1)]
    solved = milp(loss / unit, integrality=np.ones(len(pairs)), bounds=Bounds(0, 1), constraints=limits)
    if solved.x is None:
        return None
    return [choice for (_, choice), taken in zip(pairs, solved.x, strict=True) if taken > 0.5]
