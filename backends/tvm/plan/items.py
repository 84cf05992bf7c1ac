"""The steps of a plan: what each provides and needs, which are live, in which order they are written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ....ir.values import Value

Form = Literal["float", "stored"]
Need = tuple[Value, Form]


@dataclass(frozen=True)
class Item:
    """A kernel, or an operator left to the compiler.

    provides: the values it computes. needs: what it reads, as floats or int8 rows. write: writes it.
    """

    provides: tuple[Value, ...]
    needs: tuple[Need, ...]
    write: Callable[[], None]


def ordered(
    items: Sequence[Item], outputs: Iterable[Value], order: Mapping[Value, int]
) -> tuple[list[Item], set[Need]]:
    """(live items in the order to write them, everything that somebody needs).

    An item is written where the first of its values stands in the graph; what it needs stands before that.

    Args:
        items: every value is provided by at most one.
        order: the position of every value in the graph.
    """
    first = lambda item: min(order[value] for value in item.provides)
    needed: set[Need] = {(value, "float") for value in outputs}
    live = []
    for item in sorted(items, key=first, reverse=True):
        if any((value, form) in needed for value in item.provides for form in ("float", "stored")):
            live.append(item)
            needed.update(item.needs)
    return live[::-1], needed
