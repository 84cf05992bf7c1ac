"""Folds applied by several looks at the graph: what one changed, the next look sees as it is then."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ....ir.fx.graph import prune
from ....ir.program import Program
from ....ir.values import Value
from ...manager.contract import Context, Result


@dataclass(frozen=True)
class Fold:
    """One rewrite. value: what goes away. into: what takes it in, `value` of each is changed by `apply`.
    touches: values that another fold of the same look may not have changed. reason: why it stays."""

    value: Value
    into: tuple[Value, ...] = ()
    touches: tuple[Value, ...] = ()
    apply: Callable[[], None] = lambda: None
    reason: str = ""


def rounds(
    program: Program, context: Context, what: str, look: Callable[[Program], Iterable[Fold]]
) -> Result:
    """Applies all that are found, until a look finds none, in place.

    Args:
        what: they are called, in the plural.
        look: a fresh look at the graph.
    """
    folded = into = 0
    refused: set[str] = set()
    while True:
        notes: list[str] = []
        before = folded
        touched: set[Value] = set()
        for fold in look(program):
            name = fold.value.name
            if fold.reason:
                notes.append(f"{name} stays: {fold.reason}")
            elif name in refused or touched.intersection(fold.touches):
                continue
            elif context.allow(f"fold {name} into {', '.join(taker.name for taker in fold.into)}"):
                fold.apply()
                touched.update((fold.value, *fold.touches))
                folded, into = folded + 1, into + len(fold.into)
            else:
                refused.add(name)
        if folded == before:
            break
        prune(program.graph)
    statistics: dict[str, int | float | str] = {
        f"{what} folded": folded,
        "products that took them": into,
        f"{what} left": len(notes) + len(refused),
    }
    return Result(program, folded > 0, statistics, tuple(notes))
