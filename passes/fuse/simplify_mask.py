"""simplify-mask: attention masks without the indexing that exporters build them by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from ...ir.onnx.graph import Editor
from ...ir.ops.evaluate import Unknown, evaluate, scalar
from ...ir.program import Program
from ...ir.values import Dim, GraphValue
from ...ir.view import view
from ..manager.contract import Context, Exact, Pass, Result

Shape = tuple[Dim, ...]

_SIZES = ((3, 5), (5, 3), (2, 7))  # what the two axes of an indexed tensor are tried with
_WAYS = {"unsqueeze", "expand", "reshape", "squeeze", "identity"}
_POINTWISE = {"where", "mul", "add", "sub", "cast", "not", "and", "or", "maximum", "minimum", "identity"}


@dataclass(frozen=True)
class SimplifyMask(Pass):
    """Undo the detours that PyTorch's exporter takes to an attention mask.

            m = GatherND(mask, every element in order); y = And(m, GreaterOrEqual(arange, 0))
        ->  y = Unsqueeze(mask)

    * mask[arange(batch)[:, None, None, None], arange(length)], a GatherND of every element in order, becomes
      an Unsqueeze, or nothing where it adds no axis;
    * a comparison that always holds, such as arange(length) >= 0, drops out of an And;
    * an axis that only such a comparison had is left at 1, where everything below broadcasts.
    """

    name: ClassVar[str] = "simplify-mask"
    source: ClassVar = "onnx"
    target: ClassVar = "onnx"
    effect: ClassVar = Exact(1e-6)

    def run(self, program: Program, context: Context) -> Result:
        editor = Editor(program.graph)
        graph = view(program)
        new: dict[GraphValue, ir.Value] = {}
        notes: list[str] = []
        gathers = conditions = 0
        for value in graph:
            if value.op == "ai.onnx::GatherND":
                axes = _new_axes(value)
                if axes is None:
                    notes.append(f"{value.name}: it does not take every element in order")
                elif context.allow(f"simplify {value.name}"):
                    new[value] = _unsqueeze(editor, value, axes)
                    gathers += 1
            elif value.op == "and":
                kept = _kept(value)
                source = kept if kept is None else new.get(kept, kept.native)
                if kept is None or source is None or not _narrows(value, kept.shape):
                    continue
                if context.allow(f"simplify {value.name}"):
                    _reshape_below(value, kept.shape)
                    editor.replace(value.native, source)
                    new[value] = source
                    conditions += 1
        if new:
            editor.prune()
        statistics = {"gathers undone": gathers, "conditions that always hold": conditions}
        return Result(program, bool(new), statistics, tuple(notes))


def _unsqueeze(editor: Editor, value: GraphValue, axes: list[int]) -> ir.Value:
    old = value.native
    source = value.inputs[0]
    assert source is not None
    if not axes:
        editor.replace(old, source.native)
        return source.native
    where = editor.initializer(np.array(axes), f"{old.name}.axes")
    node = editor.node(
        "Unsqueeze", [source.native, where], f"{old.name}.view", before=old.producer(), like=old
    )
    editor.replace(old, node.outputs[0])
    return node.outputs[0]


def _new_axes(value: GraphValue) -> list[int] | None:
    """The unit axes that a GatherND of a whole matrix, in order, adds to it; None for any other."""
    source, index = value.inputs[0], value.inputs[1]
    if source is None or index is None or value.attrs.get("batch_dims", 0) or value.shape is None:
        return None
    shape: Shape = source.shape or ()
    if len(shape) != 2 or not all(isinstance(d, str) for d in shape) or len(set(shape)) == 1:
        return None
    places = [value.shape.index(d) if value.shape.count(d) == 1 else -1 for d in shape]
    rest = [axis for axis in range(len(value.shape)) if axis not in places]
    if -1 in places or places[0] > places[1] or any(value.shape[axis] != 1 for axis in rest):
        return None
    for sizes in _SIZES:
        try:
            found = evaluate(index, symbols={str(d): n for d, n in zip(shape, sizes, strict=True)})
        except Unknown:
            return None
        grid = np.stack(np.meshgrid(*map(np.arange, sizes), indexing="ij"), axis=-1)
        full = tuple(sizes[places.index(axis)] if axis in places else 1 for axis in range(len(value.shape)))
        if found.shape != (*full, 2) or not np.array_equal(found, grid.reshape(*full, 2)):
            return None
    return rest


def _kept(value: GraphValue) -> GraphValue | None:
    """The operand that decides an And whose other operand always holds."""
    a, b = value.inputs
    if a is None or b is None:
        return None
    return b if _holds(a) else a if _holds(b) else None


def _holds(value: GraphValue) -> bool:
    """Whether a condition is true for every element, whatever the call."""
    if value.op == "const":
        data = value.const if value.shape is not None and value.shape in ((), (1,)) else None
        return data is not None and bool(data.all())
    operands = [v for v in value.inputs if v is not None]
    if value.op == "and" or value.op in _WAYS:
        return bool(operands) and all(map(_holds, operands if value.op == "and" else operands[:1]))
    if value.op == "ge" and len(operands) == 2:
        bound = scalar(operands[1])
        return bound is not None and bound <= 0 and _counts_up(operands[0])
    return False


def _counts_up(value: GraphValue) -> bool:
    """Whether a value is a range from 0 or more upward, in any shape."""
    while value.op in _WAYS and value.inputs[0] is not None:
        value = value.inputs[0]
    if value.op != "range" or len(value.inputs) != 3:
        return False
    start, step = scalar(value.inputs[0]), scalar(value.inputs[2])
    return start is not None and step is not None and start >= 0 and step > 0


def _narrows(value: GraphValue, shape: Shape | None) -> bool:
    """Whether everything below a value still has its shape when it gets another one that broadcasts to it."""
    if shape is None or value.shape is None or len(shape) != len(value.shape):
        return False
    lost = [axis for axis, (a, b) in enumerate(zip(shape, value.shape, strict=True)) if a != b]
    if not lost:
        return True
    if value.native.is_graph_output() or any(shape[axis] != 1 for axis in lost):
        return False
    for user in value.users:
        if user.op not in _POINTWISE or user.shape is None or len(user.shape) != len(value.shape):
            return False
        others = [v.shape for v in user.inputs if v is not None and v != value and v.shape != ()]
        if any(s is None for s in others):
            return False
        covered = all(
            any(s is not None and len(s) == len(shape) and s[axis] == user.shape[axis] for s in others)
            for axis in lost
        )
        if not covered and not _narrows(user, _narrowed(user, lost)):
            return False
    return True


def _narrowed(value: GraphValue, lost: list[int]) -> Shape:
    return tuple(1 if axis in lost else d for axis, d in enumerate(value.shape or ()))


def _reshape_below(value: GraphValue, shape: Shape | None) -> None:
    """Correct the shapes that the graph notes for what gets narrower."""
    assert value.shape is not None
    assert shape is not None
    lost = [axis for axis, (a, b) in enumerate(zip(shape, value.shape, strict=True)) if a != b]
    for user in value.users if lost else ():
        others = [v.shape for v in user.inputs if v is not None and v != value and v.shape]
        if not any(s[axis] == (user.shape or ())[axis] for s in others for axis in lost):
            narrow = _narrowed(user, lost)
            user.native.shape = ir.Shape(list(narrow))
            _reshape_below(user, narrow)
