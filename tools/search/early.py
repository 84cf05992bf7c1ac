"""What tells that a candidate need not be measured: it lost far more than the goal allows."""

from __future__ import annotations

from collections.abc import Sequence

from .goal import Goal
from .rising import hopeless, rises
from .space import Choices
from .tried import Tried


def lost(drop: float, choices: Choices, known: Sequence[Tried], goal: Goal) -> str:
    """Why its time need not be measured; "" where it may be worth it.

    Args:
        drop: points lost.
        choices: those that its pipeline depends on.
        known: trials that it may be judged by.
    """
    most = next((one.most for one in goal.limits if one.of.metric == "drop"), None)
    if most is None or drop <= most + max(1.0, abs(most)):
        return ""
    said = f"{drop:.1f} points are lost, and {most:g} may be"
    if not rises(choices):
        return said
    return f"{said}, more than longer training won back elsewhere" if hopeless(drop, most, known) else ""
