"""Everything that is added to an attention's scores, as the one additive mask that a fused kernel takes.

Kernels of ONNX Runtime want a float mask with all the rows (queries) and columns (keys) of the scores; batch
and heads may be 1. A row in which every sum is the smallest float or -inf Attention treats as one without
keys, and gives zero for it (MultiHeadAttention: NaN where it is -inf). Where the graph writes the smallest
float it means an equal share of every key instead, so such masks are cut off at half of that, which hides a
key just as well.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ....ir.blocks.base import Attention
from ....ir.blocks.walk import bare, floating
from ....ir.onnx.graph import Editor
from ....ir.ops.evaluate import LARGEST, scalar
from ....ir.values import Dim, Value
from .driver import Unfit
from .operands import parse

HALF = float(np.finfo(np.float32).min) / 2
_HIDING = -1e30  # added to a score, this or less leaves nothing of it
_ENOUGH = -5e3  # hides a key beside keys that are not hidden: what older models write
_CONE = 500  # values looked at when searching a mask's constants


@dataclass(frozen=True)
class Mask:
    """terms: (factor, value) to add up. chosen: (condition, True keeps, fill) of a where over the scores.
    cut: whether to cut off at HALF. rows: of the scores, if known. headless: the scores have no axis of
    heads, (batch, queries, keys). key: equal for equal masks."""

    terms: tuple[tuple[float, Value], ...]
    chosen: tuple[Value, bool, float] | None
    cut: bool
    rows: int | str | None
    headless: bool

    @property
    def key(self) -> tuple[object, ...] | None:
        """What tells this mask from others; None where its rows are not known to be anybody else's."""
        return None if self.rows is None else (self.terms, self.chosen, self.cut, self.rows, self.headless)


def mask(attention: Attention, zeroing: bool) -> Mask | None:
    """What to add to the scores of an attention, None if nothing.

    Args:
        zeroing: the kernel gives zero for a row whose keys are all hidden by -inf, not NaN.

    Raises:
        Unfit: a kernel would treat rows without keys otherwise than the graph, or the mask's axes are not
            those of (batch, heads, queries, keys).
    """
    chosen, guarded = _wheres(attention)
    if not attention.terms and chosen is None:
        return None
    for value in [*(term for _, term in attention.terms), *([chosen[0]] if chosen else [])]:
        if value.shape is None:
            raise Unfit(f"the rank of its mask '{value.name}' is unknown")
        if len(value.shape) > 4 or (len(value.shape) == 3 and attention.layouts[0].startswith("(")):
            raise Unfit(f"its mask '{value.name}' has batch and heads on one axis")
        if value.shape and value.shape[-1] == 1:
            raise Unfit(f"its mask '{value.name}' hides queries, not keys")
        if chosen is None and value.dtype not in (None, "float32"):
            raise Unfit(f"its mask '{value.name}' is {value.dtype}")
    kinds = {kind for _, term in attention.terms for kind in _hiding(term)}
    if chosen is not None:
        kinds.add("infinite" if chosen[2] == -math.inf else "finite")
        if "finite" in kinds and any(_hiding(term, _ENOUGH) for _, term in attention.terms):
            raise Unfit("two masks hide keys, one added to the scores and one written over them")
    if "infinite" in kinds and "finite" in kinds:
        raise Unfit("its mask mixes -inf with the smallest float")
    if "given" in kinds and guarded:
        raise Unfit(
            "its mask is an input, which may hide all keys of a row with -inf or with a finite number"
        )
    if "infinite" in kinds and guarded and not zeroing:
        raise Unfit("a row without keys gives zero in it, and NaN in MultiHeadAttention")
    length = attention.query.shape
    axis = attention.layouts[0].replace("(bh)", "b").index("l")
    rows = length[axis] if length else None
    headless = parse(attention.layouts[0]) == ("b", "l", "d")
    return Mask(tuple(attention.terms), chosen, bool(kinds & {"finite", "given"}), rows, headless)


def _wheres(attention: Attention) -> tuple[tuple[Value, bool, float] | None, bool]:
    """((condition, True keeps, fill) of the where over the scores, whether NaN probabilities become 0)."""
    chosen, guarded = None, False
    for value in attention.body:
        if value.op == "where" and value.inputs[0] is not None:
            if value.inputs[0].op == "isnan":
                guarded = True
            elif attention.mask_kind == "bool" and value.inputs[0] == attention.mask:
                fill = scalar(value.inputs[2 if attention.mask_keeps else 1])
                if fill is None:
                    raise Unfit(f"what '{value.name}' writes over hidden scores is no plain number")
                chosen = (value.inputs[0], attention.mask_keeps, -math.inf if fill == -math.inf else HALF)
    if attention.selected and chosen is None:
        raise Unfit("its boolean mask is applied in a way that is not understood")
    return chosen, guarded


def _hiding(term: Value, least: float = _HIDING) -> set[str]:
    """How a mask hides keys: with "finite" numbers below `least`, "infinite" ones, or as it is "given" to the
    model."""
    found: set[str] = set()
    seen = {term: None}
    stack = [term]
    while stack and len(seen) < _CONE:
        value = bare(stack.pop())
        if value.op in ("dim", "shape") or not floating(value.dtype):
            continue  # an integer or a condition holds no number that hides
        if value.op == "log":
            found.add("infinite")
        elif value.op == "input":
            found.add("given")
        elif value.op in ("const", "full"):
            lowest = _lowest(value)
            if lowest < least:
                found.add("infinite" if lowest == -math.inf else "finite")
        for operand in value.inputs:
            if operand is not None and operand not in seen:
                seen[operand] = None
                stack.append(operand)
    return found


def _lowest(value: Value) -> float:
    """The smallest element of a constant; 0 for one too large to be a mask."""
    if value.op == "full":
        return float(value.attrs["value"])
    shape = [d for d in value.shape or () if isinstance(d, int)]
    data = value.const if math.prod(shape) <= LARGEST else None
    return 0.0 if data is None or data.size == 0 or data.dtype.kind != "f" else float(data.min())


def write(editor: Editor, mask: Mask, query: ir.Value, rank: int, name: str, before: ir.Node) -> ir.Value:
    """The additive mask, before a node.

    Args:
        query: (batch, length, features), for its length.
        rank: what the kernel wants at least; 1 leaves the mask's own.
    """
    result: ir.Value | None = None
    add = lambda op, inputs: editor.node(op, inputs, name, before=before).outputs[0]
    number = lambda value, what: editor.initializer(np.array(value, np.float32), f"{name}.{what}")
    shapes: list[tuple[Dim, ...]] = []

    def entered(value: Value) -> ir.Value:
        """A part of the mask under scores with an axis of heads; what has its own shape needs one too."""
        shape: tuple[Dim, ...] = value.shape or ()
        if not mask.headless or len(shape) != 3:
            shapes.append(shape)
            return value.native
        shapes.append((shape[0], 1, *shape[1:]))
        return add("Unsqueeze", [value.native, editor.initializer(np.array([1]), f"{name}.heads")])

    if mask.chosen is not None:
        condition, keeps, fill = mask.chosen
        pair = [number(0, "open"), number(fill, "hidden")]
        result = add("Where", [entered(condition), *(pair if keeps else pair[::-1])])
    for factor, value in mask.terms:
        term = entered(value)
        term = term if factor == 1 else add("Mul", [term, number(factor, "factor")])
        result = term if result is None else add("Add", [result, term])
    assert result is not None
    if mask.cut:
        result = add("Max", [result, number(HALF, "floor")])
    size = max(len(shape) for shape in shapes)
    if not any(mask.rows is not None and s[-2:-1] == (mask.rows,) for s in shapes):
        length = editor.node(
            "Shape", [query], f"{name}.rows", before=before, attrs={"start": 1, "end": 2}
        ).outputs[0]
        one = editor.initializer(np.array([1]), f"{name}.one")
        around = [one] * max(size - 2, rank - 2)
        shape = editor.node(
            "Concat", [*around, length, one], f"{name}.shape", before=before, attrs={"axis": 0}
        ).outputs[0]
        return add("Expand", [result, shape])
    if size < rank:
        axes = editor.initializer(np.arange(rank - size), f"{name}.axes")
        result = add("Unsqueeze", [result, axes])
    return result
