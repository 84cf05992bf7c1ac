"""What a mask hides: whether positions only look back, found by computing it on a small example."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..ops.evaluate import Unknown, evaluate, shape_of
from ..values import Value
from .walk import bare

HIDDEN = -1e3  # added to a score, this or less hides the key
LEARNED = 2000  # values looked at when searching a bias's origin


@dataclass(frozen=True)
class Reach:
    """causal: every later key is hidden, no earlier one need be. why: what stood in the way of an answer."""

    causal: bool
    why: str = ""


class Masks:
    """Answers about masks, kept: the layers of a model share them."""

    def __init__(self, projections: Container[Value] = ()) -> None:
        """projections: values that hold what tokens hold; nothing is searched beyond them."""
        self._projections = projections
        self._reach: dict[tuple[Value, bool, bool, float], Reach] = {}
        self._origin: dict[Value, tuple[bool, tuple[Value, ...]]] = {}

    def reach(self, mask: Value, additive: bool, keeps: bool, factor: float) -> Reach:
        """What a mask lets through when no token is padding.

        Args:
            mask: its last two axes are queries and keys, of equal length for an answer.
            additive: it is added to the scores; otherwise True keeps (`keeps`) or hides a key.
            keeps: see `additive`.
            factor: an additive mask is multiplied by this.
        """
        key = (mask, additive, keeps, factor)
        if key not in self._reach:
            self._reach[key] = _reach(mask, additive, keeps, factor)
        return self._reach[key]

    def hides(self, gate: Value, terms: Sequence[tuple[float, Value]]) -> bool:
        """Whether a gate is of ones and zeros, and where it is 0 the terms hide the key; False if unknown."""
        try:
            seen = evaluate(gate, _feeds(gate), {})
            added = sum((factor * evaluate(term, _feeds(term), {}) for factor, term in terms), np.float64(0))
            shut = np.broadcast_to(seen == 0, np.broadcast_shapes(seen.shape, np.shape(added)))
        except (Unknown, ValueError):
            return False
        return bool(
            np.isin(seen, (0, 1)).all() and (np.broadcast_to(added, shut.shape)[shut] <= HIDDEN).all()
        )

    def learned(self, term: Value) -> bool:
        """Whether a term added to the scores comes from a learned table, or from what the tokens hold."""
        return self._search(term)[0]

    def products(self, term: Value) -> tuple[Value, ...]:
        """The products of two computed values that a term added to the scores comes from."""
        return self._search(term)[1]

    def _search(self, term: Value) -> tuple[bool, tuple[Value, ...]]:
        if term not in self._origin:
            self._origin[term] = _origins(term, self._projections)
        return self._origin[term]


def _reach(mask: Value, additive: bool, keeps: bool, factor: float) -> Reach:
    try:
        seen = evaluate(mask, _feeds(mask), {})
    except Unknown as unknown:
        return Reach(False, str(unknown))
    if seen.ndim < 2 or seen.shape[-2] != seen.shape[-1] or seen.shape[-1] < 2:
        return Reach(False)
    if additive:
        open_ = seen * factor > HIDDEN
    else:
        open_ = seen.astype(bool) if keeps else ~seen.astype(bool)
    later = np.triu(np.ones(open_.shape[-2:], bool), 1)
    diagonal = np.eye(open_.shape[-1], dtype=bool)
    return Reach(bool(not open_[..., later].any() and open_[..., diagonal].all()))


def _feeds(mask: Value) -> Mapping[Value, np.ndarray]:
    """A value for every graph input that a mask is computed from: ones, so that no token is padding."""
    feeds: dict[Value, np.ndarray] = {}
    for value in _cone(mask):
        if value.op == "input":
            shape = shape_of(value, {})
            integral = value.dtype is not None and ("int" in value.dtype or value.dtype == "bool")
            # A float mask handed in is added to scores, where zero hides nothing.
            feeds[value] = (
                np.ones(shape, value.dtype) if integral else np.zeros(shape, value.dtype or "float32")
            )
    return feeds


def _cone(value: Value, ends: Container[Value] = ()) -> list[Value]:
    """Everything a value is computed from, itself and `ends` included, up to LEARNED values."""
    seen = {value: None}
    stack = [value]
    while stack and len(seen) < LEARNED:
        top = stack.pop()
        if top in ends:
            continue
        if top.op in ("dim", "shape") and top.inputs[0] is not None and top.inputs[0].op != "input":
            continue  # how long something is says nothing of what it holds
        for operand in top.inputs:
            if operand is not None and operand not in seen:
                seen[operand] = None
                stack.append(operand)
    return list(seen)


def _origins(term: Value, projections: Container[Value]) -> tuple[bool, tuple[Value, ...]]:
    """(whether a float table or a projection, products of computed values) is in what a term comes from."""
    learned = False
    products: list[Value] = []
    for value in _cone(term, projections):
        if value in projections:
            learned = True
        elif value.op in ("matmul", "einsum", "aten.baddbmm.default"):
            if not any(_constant(v) for v in value.inputs):
                learned = True
                products.append(value)
        elif value.op in ("embedding", "gather", "index", "gather_elements"):
            table = value.inputs[0]
            learned |= table is not None and "float" in (table.dtype or "") and _constant(table)
    return learned, tuple(products)


def _constant(value: Value | None) -> bool:
    return value is None or bare(value).op == "const"
