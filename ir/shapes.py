"""Shape and dtype of a canonical operator's result, where the graph itself doesn't say.

Files from older exporters carry no shapes inside, and nor does what a pass has just inserted. Only what
follows for certain is inferred: an axis that could be two things is None.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from .view import END, Dim, GraphValue

Shape = tuple[Dim, ...]
Shapes = Sequence[Shape | None]
Attrs = Mapping[str, Any]

SAME = set(
    "abs cos erf exp floor isnan log neg reciprocal relu rsqrt sigmoid sign silu sin sqrt tanh not gelu "
    "softplus identity dropout cast softmax log_softmax layer_norm rms_norm cumsum tril triu clip "
    "quantize_linear dequantize_linear com.microsoft::BiasGelu com.microsoft::FastGelu com.microsoft::Gelu "
    "com.microsoft::QuickGelu com.microsoft::SkipLayerNormalization com.microsoft::RotaryEmbedding "
    "com.microsoft::SkipSimplifiedLayerNormalization com.microsoft::MultiHeadAttention".split()
)
COMPARE = set("eq ne lt le gt ge and or xor not isnan".split())
BROADCAST = set("add sub mul div pow mod maximum minimum where".split()) | (COMPARE - {"not", "isnan"})


def infer(op: str, inputs: Sequence[GraphValue | None], attrs: Attrs, index: int) -> Shape | None:
    """The shape of result `index` of an operator, as far as it follows from its operands."""
    shapes = [None if value is None else value.shape for value in inputs]
    if op in BROADCAST:
        return broadcast(shapes)
    if op in ("range", "dim"):
        return (None,) if op == "range" else ()
    first = shapes[0] if shapes else None
    if first is None:
        return None
    if op in SAME:
        return first if index == 0 else None
    rule = _RULES.get(op)
    return rule(first, shapes, attrs, index) if rule else None


def infer_dtype(op: str, inputs: Sequence[GraphValue | None], attrs: Attrs) -> str | None:
    """The dtype's name, as far as it follows."""
    if op in COMPARE:
        return "bool"
    if op in ("shape", "dim"):
        return "int64"
    if op == "cast":
        return attrs["to"]
    if op == "full":
        return {bool: "bool", int: "int64"}.get(type(attrs["value"]), "float32")
    operands = [value for value in inputs[1 if op == "where" else 0 :] if value is not None]
    if op in SAME | BROADCAST | _RULES.keys() | {"range", "where"} and not op.endswith("quantize_linear"):
        return operands[0].dtype if operands else None
    return None


def merge(known: Shape | None, inferred: Shape | None) -> Shape | None:
    """What the graph says, with unknown axes filled in."""
    if known is None or inferred is None or len(known) != len(inferred):
        return inferred if known is None else known
    return tuple(i if k is None else k for k, i in zip(known, inferred, strict=True))


def broadcast(shapes: Shapes) -> Shape | None:
    """NumPy's rule, with symbols."""
    if any(s is None for s in shapes):
        return None
    sizes = [s for s in shapes if s is not None]
    rank = max((len(s) for s in sizes), default=0)
    padded = [(1,) * (rank - len(s)) + tuple(s) for s in sizes]
    return tuple(_meet(column) for column in zip(*padded, strict=True))


def _meet(column: tuple[Dim, ...]) -> Dim:
    wide = list(dict.fromkeys(d for d in column if d != 1))
    fixed = [d for d in wide if isinstance(d, int)]
    if not wide:
        return 1
    return fixed[0] if fixed else (wide[0] if len(wide) == 1 else None)


def reshaped(source: Shape | None, target: Sequence[Dim]) -> Shape:
    """The result of a reshape whose target may hold one -1, which symbols on both sides cancel from."""
    if -1 not in target:
        return tuple(target)
    free = list(target).index(-1)
    rest = [d for i, d in enumerate(target) if i != free]
    size: Dim = None
    if source is not None and None not in source and None not in rest:
        over = [d for d in source if isinstance(d, str)]
        for symbol in (d for d in rest if isinstance(d, str)):
            if symbol not in over:
                return tuple(None if i == free else d for i, d in enumerate(target))
            over.remove(symbol)
        top, bottom = (prod(d for d in dims if isinstance(d, int)) for dims in (source, rest))
        if not over and bottom and top % bottom == 0:
            size = top // bottom
        elif len(over) == 1 and top == bottom:
            size = over[0]
    return tuple(size if i == free else d for i, d in enumerate(target))


def _matmul(first: Shape, shapes: Shapes, attrs: Attrs, index: int) -> Shape | None:
    second = shapes[1]
    if second is None or len(first) < 2 or len(second) < 2:
        return None
    batch = broadcast([first[:-2], second[:-2]])
    return None if batch is None else (*batch, first[-2], second[-1])


def _linear(first: Shape, shapes: Shapes, attrs: Attrs, index: int) -> Shape | None:
    weight = shapes[1]
    return None if weight is None else (*first[:-1], weight[0 if attrs["transposed"] else 1])


def _unsqueeze(first: Shape, shapes: Any, attrs: Attrs, index: int) -> Shape:
    sizes = iter(first)
    rank = len(first) + len(attrs["axes"])
    axes = {a % rank for a in attrs["axes"]}
    return tuple(1 if i in axes else next(sizes) for i in range(rank))


def _reduce(first: Shape, shapes: Any, attrs: Attrs, index: int) -> Shape:
    axes = {a % len(first) for a in attrs["axes"]}
    if attrs["keepdim"]:
        return tuple(1 if i in axes else d for i, d in enumerate(first))
    return tuple(d for i, d in enumerate(first) if i not in axes)


def _concat(first: Shape, shapes: Shapes, attrs: Attrs, index: int) -> Shape | None:
    axis = attrs["axis"] % len(first) if first else 0
    known = [s for s in shapes if s is not None and len(s) == len(first)]
    if len(known) < len(shapes):
        return None
    total: Dim = 0
    for size in (s[axis] for s in known):
        total = total + size if isinstance(total, int) and isinstance(size, int) else None
    return tuple(total if i == axis else _meet(column) for i, column in enumerate(zip(*known, strict=True)))


def _slice(first: Shape, shapes: Any, attrs: Attrs, index: int) -> Shape:
    axis, start, end, step = (attrs[k] for k in ("axis", "start", "end", "step"))
    size: Dim = None
    if isinstance(first[axis], int) and None not in (start, end, step):
        size = len(range(first[axis])[start:end:step])
    elif (start, end, step) == (0, END, 1):
        size = first[axis]
    return tuple(size if i == axis % len(first) else d for i, d in enumerate(first))


def _split(first: Shape, shapes: Any, attrs: Attrs, index: int) -> Shape:
    sizes = attrs["sizes"]
    size = sizes[index] if index < len(sizes) else None
    return tuple(size if i == attrs["axis"] % len(first) else d for i, d in enumerate(first))


def _select(first: Shape, shapes: Any, attrs: Attrs, index: int) -> Shape:
    return tuple(d for i, d in enumerate(first) if i != attrs["axis"] % len(first))


def _gather(first: Shape, shapes: Shapes, attrs: Attrs, index: int) -> Shape | None:
    ids, axis = shapes[1], attrs.get("axis", 0) % len(first)
    return None if ids is None else (*first[:axis], *ids, *first[axis + 1 :])


_RULES: dict[str, Any] = {
    "matmul": _matmul,
    "linear": _linear,
    "transpose": lambda first, s, attrs, i: tuple(first[p] for p in attrs["perm"]),
    "unsqueeze": _unsqueeze,
    "squeeze": lambda first, s, attrs, i: tuple(
        d for i, d in enumerate(first) if i not in {a % len(first) for a in attrs["axes"]}
    ),
    **dict.fromkeys(("mean", "sum", "max", "min"), _reduce),
    "concat": _concat,
    "slice": _slice,
    "split": _split,
    "select": _select,
    "embedding": _gather,
    "gather": _gather,
    "gather_elements": lambda first, shapes, attrs, i: shapes[1],
    "expand": lambda first, s, attrs, i: tuple(attrs["shape"]),
    "reshape": lambda first, s, attrs, i: tuple(attrs["shape"]),
    "sdpa": lambda first, s, attrs, i: None if s[2] is None else (*first[:-1], s[2][-1]),
    "shape": lambda first, s, attrs, i: (len(range(len(first))[attrs["start"] : attrs["end"]]),),
}
