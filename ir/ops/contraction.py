"""einsum by a parameter, as the product with a matrix that it is: one spelling of a projection.

"bih,hnd->bind" (batch, length, features by heads) is a Linear of n*d outputs and a reshape; what recognises,
quantizes, prunes and fuses Linears then works on it.
"""

from __future__ import annotations

import string
from dataclasses import dataclass


@dataclass(frozen=True)
class Projection:
    """How an einsum of a computed value and a parameter is a product of rows by a matrix.

    x: the permutation that puts rows before what is summed over. rows: how many axes those are.
    weight: that of the parameter that puts its outputs, `outputs` axes, before what is summed over.
    result: the permutation of (rows, outputs) that gives the einsum's result.
    """

    x: tuple[int, ...]
    weight: tuple[int, ...]
    result: tuple[int, ...]
    rows: int
    outputs: int


def permutation(equation: str) -> tuple[int, ...] | None:
    """The order of axes that an equation of one operand spells, or None where it sums or takes a diagonal."""
    term, arrow, out = equation.replace(" ", "").partition("->")
    if not arrow or "," in term or "." in term or len(set(term)) != len(term) or set(out) != set(term):
        return None
    return tuple(term.index(c) for c in out) if len(out) == len(term) else None


def projection(equation: str, weight: int, rank: int | None) -> Projection | None:
    """The projection that an equation spells, or None: of another count of operands, of axes that are taken
    from a diagonal, summed over in one operand alone, or matched without being summed over.

    Args:
        equation: numpy.einsum's, with "->". weight: which operand is the parameter, 0 or 1.
        rank: of the other operand, some of whose axes an ellipsis may stand for; None if unknown.
    """
    left, arrow, result = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if not arrow or len(terms) != 2 or "..." in terms[weight]:
        return None
    named = len(terms[1 - weight].replace("...", ""))
    if rank is None and "..." not in terms[1 - weight]:
        rank = named
    if rank is None or rank < named:
        return None
    free = [c for c in string.ascii_letters if c not in equation][: rank - named]
    x, w, out = (t.replace("...", "".join(free)) for t in (terms[1 - weight], terms[weight], result))
    if any(len(set(term)) != len(term) for term in (x, w, out)) or len(x) != rank:
        return None
    summed = [c for c in x if c in w and c not in out]
    rows = [c for c in x if c in out and c not in w]
    outputs = [c for c in w if c in out and c not in x]
    if not (summed and rows and outputs) or len(x) != len(rows + summed) or len(w) != len(outputs + summed):
        return None
    if len(out) != len(rows + outputs):
        return None
    return Projection(
        tuple(x.index(c) for c in rows + summed),
        tuple(w.index(c) for c in outputs + summed),
        tuple((rows + outputs).index(c) for c in out),
        len(rows),
        len(outputs),
    )
