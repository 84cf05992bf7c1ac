"""Whether a graph input is a mask and which of its values hide: found by computing what it does to scores.

What is computed from inputs alone is *known*; where a known value meets others (is added to scores, chooses
what is written over them, is multiplied with hidden states), it is computed for an input of ones and for one
of zeros, and what hides more tells the polarity.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ..blocks.mask import HIDDEN
from ..ops.evaluate import DEFAULT_SIZE, Unknown, computable, evaluate, scalar, shape_of
from ..values import GraphValue, GraphView, Value

LARGEST = 4000  # values that may be computed from inputs alone
_OVER_SCORES = frozenset(
    "add sub where reshape transpose unsqueeze squeeze expand cast dropout mul div maximum clip".split()
)
# Operators that take masks: operand -> how it hides ("bool": False does; "keeps": 0 does; "add": added).
_OPERANDS: Mapping[str, Mapping[int, str]] = {
    "sdpa": {3: "mask"},
    "ai.onnx::Attention": {3: "mask"},
    "com.microsoft::Attention": {3: "keeps", 5: "add"},
    "com.microsoft::MultiHeadAttention": {4: "keeps", 5: "add"},
    "com.microsoft::DecoderMaskedMultiHeadAttention": {3: "keeps", 4: "add"},
}


@dataclass(frozen=True)
class Hiding:
    """hidden: what the input holds where it hides, as `InputSpec.hidden` says. scores: keys are hidden from
    queries; otherwise values become zero. empty: a query that sees no key gives zeros rather than NaN."""

    hidden: float
    scores: bool
    empty: bool = False


def hiding(view: GraphView, value: GraphValue, zeros: bool = True) -> Hiding | None:
    """How an input hides, None where it hides nothing that can be told.

    zeros: what makes values zero where the input is zero may be a mask, not only what hides keys.
    """
    shape = value.shape
    if not shape:
        return None
    floats = value.dtype is None or "float" in value.dtype
    weaker: Hiding | None = None
    for reader, position, known in _meetings(value):
        how = _how(reader, position)
        if how is None or (not zeros and how.startswith("zero")):
            continue
        hidden = _polarity(view, value, known, how, floats)
        if hidden is None:
            continue
        scores = not how.startswith("zero")
        found = Hiding(hidden, scores, reader.op == "sdpa" and known.dtype == "bool")
        if scores:
            return found
        weaker = weaker or found
    return weaker


def _meetings(value: GraphValue) -> Iterator[tuple[GraphValue, int, GraphValue]]:
    """(reader, position, known operand) wherever something computed from the input and other inputs alone is
    read by something that isn't."""
    known: dict[GraphValue, None] = {value: None}
    unknown: set[GraphValue] = set()
    stack = [value]
    while stack and len(known) < LARGEST:
        top = stack.pop()
        for user in top.users:
            if user in known:
                continue
            if _from_inputs(user, known, unknown):
                known[user] = None
                stack.append(user)
            else:
                for position, operand in enumerate(user.inputs):
                    if operand == top:
                        yield user, position, top


def _from_inputs(value: GraphValue, known: dict[GraphValue, None], unknown: set[GraphValue]) -> bool:
    """Whether a value is computed from integer inputs, constants and `known` values by known operators."""
    stack = [value]
    seen: dict[GraphValue, None] = {}
    while stack:
        top = stack.pop()
        if top in known or top in seen:
            continue
        if top in unknown or len(seen) > LARGEST:
            unknown.add(value)
            return False
        if top.op in ("dim", "shape", "const"):
            continue
        if top.op == "input":
            if top.dtype is not None and "float" not in top.dtype:
                continue
            unknown.add(value)
            return False
        table = top.inputs[0] if top.op in ("embedding", "gather") and top.inputs else None
        weight = table is not None and table.op == "const" and "float" in (table.dtype or "")
        if not computable(top.op) or top.op == "matmul" or weight:
            unknown.add(value)
            return False
        seen[top] = None
        stack += [operand for operand in top.inputs if operand is not None]
    return True


def _how(reader: GraphValue, position: int) -> str | None:
    """How a known operand hides what it meets: "mask", "keeps", "add", "sub", "fill yes" and "fill no" (over
    scores), "zero", "zero yes" and "zero no" (over values); None where it doesn't."""
    listed = _OPERANDS.get(reader.op, {}).get(position)
    if listed is not None:
        return listed
    if reader.op in ("add", "sub"):
        return (reader.op if position else "add") if _scores(reader) else None
    if reader.op == "mul":
        return "zero"
    if reader.op == "where" and position == 0:
        for fill, side in ((reader.inputs[1], "yes"), (reader.inputs[2], "no")):
            number = _number(fill)
            if number is not None and number <= HIDDEN:
                return f"fill {side}"
            if number == 0:
                return f"zero {side}"
    if reader.op.startswith("aten.index_put") and position == 1:
        return "zero yes"
    return None


def _number(value: GraphValue | None) -> float | None:
    """A number, or a tensor filled with one."""
    while value is not None and value.op in ("expand", "cast", "identity", "reshape"):
        value = value.inputs[0]
    if value is not None and value.op == "full":
        return float(value.attrs["value"])
    return scalar(value)


def _scores(value: GraphValue) -> bool:
    """Whether a sum goes on to a softmax."""
    stack, seen = [value], {value}
    while stack and len(seen) < 40:
        for user in stack.pop().users:
            if "softmax" in user.op or (user.op == "exp"):
                return True
            if user.op in _OVER_SCORES and user not in seen:
                seen.add(user)
                stack.append(user)
    return False


def _polarity(view: GraphView, value: GraphValue, known: GraphValue, how: str, floats: bool) -> float | None:
    """What `value` holds where it hides something by way of `known`; None where nothing can be told."""
    least = float(np.finfo(_numpy(value.dtype)).min) if floats else 0
    for others in (1, 0, DEFAULT_SIZE):
        try:
            seen = {
                filled: _computed(view, value, known, filled, others)
                for filled in ((0, 1, least / 4) if floats else (0, 1))
            }
        except Unknown:
            return None
        if how == "zero" and not all(_flags(array) for array in seen.values()):
            return None
        shown = {filled: _hidden(array, how) for filled, array in seen.items()}
        if floats and shown[least / 4] > shown[0]:
            return least
        if shown[0] != shown[1]:
            return 0 if shown[0] > shown[1] else 1
    return None


def _computed(
    view: GraphView, value: GraphValue, known: GraphValue, filled: float, others: int
) -> np.ndarray:
    feeds: dict[Value, np.ndarray] = {
        each: np.full(shape_of(each, {}), filled if each == value else others, _numpy(each.dtype))
        for each in view.inputs
        if each == value or "float" not in (each.dtype or "float")
    }
    return evaluate(known, dict(feeds), {})


def _numpy(dtype: str | None) -> str:
    return "float32" if dtype in (None, "bfloat16") else dtype


def _flags(seen: np.ndarray) -> bool:
    """Whether there is one number beside zeros: sines of a position are zero at zero, and hide nothing."""
    return np.unique(seen[seen != 0]).size <= 1


def _hidden(seen: np.ndarray, how: str) -> float:
    """Which share of what a known operand meets it hides."""
    if how == "mask":
        how = "keeps" if seen.dtype == bool else "add"
    if how == "keeps" or how == "zero":
        hides = seen == 0
    elif how in ("add", "sub"):
        hides = (seen if how == "add" else -seen) <= HIDDEN
    else:
        hides = (seen != 0) == how.endswith("yes")
    return float(hides.mean()) if hides.size else 0.0
