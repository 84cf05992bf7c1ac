"""Shape and dtype of a canonical operator's result, where the graph itself doesn't say.

Files from older exporters carry no shapes inside, and nor does what a pass has just inserted. Only what
follows for certain is inferred: an axis that could be two things is None.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from math import prod
from typing import Any

from ..values import END, Dim, GraphValue

Shape = tuple[Dim, ...]
Shapes = Sequence[Shape | None]
Attrs = Mapping[str, Any]

SAME = set(
    "abs cast ceil clip cos cumsum dequantize_linear dropout erf exp floor gelu identity isnan layer_norm "
    "log log_softmax neg not quantize_linear reciprocal relu rms_norm round rsqrt sigmoid sign silu sin "
    "softmax softplus sqrt tanh tril triu ai.onnx::RotaryEmbedding com.microsoft::BiasGelu "
    "com.microsoft::FastGelu com.microsoft::Gelu com.microsoft::MultiHeadAttention com.microsoft::QuickGelu "
    "com.microsoft::RotaryEmbedding com.microsoft::SkipLayerNormalization "
    "com.microsoft::SkipSimplifiedLayerNormalization".split()
)
COMPARE = set("eq ne lt le gt ge and or xor not isnan".split())
BROADCAST = set("add sub mul div pow mod maximum minimum where".split()) | (COMPARE - {"not", "isnan"})


def concatenated(
    operands: Sequence[Any], shapes: Shapes, axis: int
) -> tuple[str, Sequence[Any], dict[str, Any]]:
    """A concatenation's operator, operands and attributes.

    Operands with nothing along the axis are left out: a rotation of every feature joins the none that it
    left alone.
    """
    full = [x for x, size in zip(operands, shapes, strict=True) if not size or size[axis : axis + 1] != (0,)]
    return ("identity", full, {}) if len(full) == 1 else ("concat", full or operands, {"axis": axis})


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
    if op in ("shape", "dim", "argmax"):
        return "int64"
    if op == "cast":
        return attrs["to"]
    if op == "full":
        return {bool: "bool", int: "int64"}.get(type(attrs["value"]), "float32")
    operands = [value for value in inputs[1 if op == "where" else 0 :] if value is not None]
    if op in SAME | BROADCAST | _RULES.keys() | {"range", "where"} and not op.endswith("quantize_linear"):
        return operands[0].dtype if operands else None
    return None


def merge(known: Shape | None, inferred: Shape | None, symbols: Collection[str]) -> Shape | None:
    """What the graph says, with unknown axes filled in.

    Args:
        symbols: the inputs' own. Exporters name axes inside the graph as they please ("Mul_7_dim_1"), so any
            other name yields to what is inferred.
    """
    if known is None or inferred is None or len(known) != len(inferred):
        return inferred if known is None else known
    return tuple(
        k if i is None or isinstance(k, int) or k in symbols else i
        for k, i in zip(known, inferred, strict=True)
    )


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


def factors(size: int | str) -> tuple[int, list[str]]:
    """A size as a number times symbols: "4*batch" is (4, ["batch"]); a sum counts as one symbol."""
    if isinstance(size, int):
        return size, []
    if not re.fullmatch(r"\w+(\*\w+)*", size):
        return 1, [size]
    parts = size.split("*")
    return prod(int(p) for p in parts if p.isdigit()), [p for p in parts if not p.isdigit()]


def reshaped(source: Shape | None, target: Sequence[Dim]) -> Shape:
    """The result of a reshape whose target may hold one -1, which symbols on both sides cancel from."""
    if -1 not in target:
        return tuple(target)
    free = list(target).index(-1)
    rest = [d for i, d in enumerate(target) if i != free]
    return tuple(_quotient(source, rest) if i == free else d for i, d in enumerate(target))


def _quotient(source: Shape | None, divisor: Sequence[Dim]) -> Dim:
    """The product of the sizes in `source` over that of `divisor`; None where it may not divide."""
    if source is None or None in (*source, *divisor):
        return None
    top, over = _product(source)
    bottom, under = _product(divisor)
    for symbol in under:
        if symbol not in over:
            return None
        over.remove(symbol)
    if not bottom or top % bottom:
        return None
    number = top // bottom
    symbols = sorted(over)
    return "*".join([str(number)] * (number != 1) + symbols) if symbols else number


def _product(sizes: Sequence[Dim]) -> tuple[int, list[str]]:
    parts = [factors(size) for size in sizes if size is not None]
    return prod(number for number, _ in parts), [symbol for _, symbols in parts for symbol in symbols]


def _matmul(first: Shape, shapes: Shapes, attrs: Attrs, index: int) -> Shape | None:
    second = shapes[1]
    if second is None or len(first) < 2 or len(second) < 2:
        return None
    batch = broadcast([first[:-2], second[:-2]])
    return None if batch is None else (*batch, first[-2], second[-1])


def _linear(first: Shape, shapes: Shapes, attrs: Attrs, index: int) -> Shape | None:
    weight = shapes[1]
    return None if weight is None else (*first[:-1], weight[0 if attrs["transposed"] else 1])


def _einsum(first: Shape, shapes: Shapes, attrs: Attrs, index: int) -> Shape | None:
    """Every letter's size, from a factor in which it is not an axis of one; an ellipsis is not followed."""
    terms, arrow, result = attrs["equation"].partition("->")
    if not arrow or "." in terms or None in shapes:
        return None
    sizes: dict[str, Dim] = {}
    for letters, shape in zip(terms.split(","), shapes, strict=True):
        for letter, size in zip(letters, shape or (), strict=True):
            if letter not in sizes or sizes[letter] in (1, None):
                sizes[letter] = size
    return tuple(sizes[letter] for letter in result)


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


def _pad(first: Shape, shapes: Any, attrs: Attrs, index: int) -> Shape:
    return tuple(
        d if pads == (0, 0) else d + sum(pads) if isinstance(d, int) else None
        for d, pads in zip(first, attrs["pads"], strict=True)
    )


def _tile(first: Shape, shapes: Any, attrs: Attrs, index: int) -> Shape:
    repeats = attrs["repeats"]
    padded = (1,) * (len(repeats) - len(first)) + first
    sizes = zip(padded, repeats, strict=True)
    return tuple(d if r == 1 else r * d if isinstance(d, int) and r is not None else None for d, r in sizes)


def _conv(first: Shape, shapes: Shapes, attrs: Attrs, index: int) -> Shape | None:
    kernel = shapes[1]
    if kernel is None:
        return None
    sizes: list[Dim] = []
    for size, reach, stride, pad, dilation in zip(
        first[2:], kernel[2:], attrs["stride"], attrs["padding"], attrs["dilation"], strict=True
    ):
        if isinstance(size, int) and isinstance(reach, int):
            sizes.append((size + 2 * pad - dilation * (reach - 1) - 1) // stride + 1)
        else:
            sizes.append(size if (reach, stride, pad) == (1, 1, 0) else None)
    return (first[0], kernel[0], *sizes)


def _attention(first: Shape, shapes: Shapes, attrs: Attrs, index: int) -> Shape | None:
    """ONNX's own, of queries, keys and values with four axes, or with heads side by side in three."""
    value = shapes[2]
    if index or value is None or len(value) != len(first):
        return None
    if len(first) == 4:
        return (*first[:-1], value[-1])
    heads, groups = attrs.get("q_num_heads"), attrs.get("kv_num_heads")
    width = value[-1]
    if not (isinstance(width, int) and heads and groups):
        return (*first[:-1], None)
    return (*first[:-1], width * heads // groups)


_RULES: dict[str, Any] = {
    "ai.onnx::Attention": _attention,
    **dict.fromkeys(("conv1d", "conv2d"), _conv),
    "matmul": _matmul,
    "linear": _linear,
    "einsum": _einsum,
    "transpose": lambda first, s, attrs, i: tuple(first[p] for p in attrs["perm"]),
    "unsqueeze": _unsqueeze,
    "squeeze": lambda first, s, attrs, i: tuple(
        d for i, d in enumerate(first) if i not in {a % len(first) for a in attrs["axes"]}
    ),
    **dict.fromkeys(("mean", "sum", "max", "min", "l2"), _reduce),
    "concat": _concat,
    "slice": _slice,
    "split": _split,
    "select": _select,
    "embedding": _gather,
    "gather": _gather,
    "gather_elements": lambda first, shapes, attrs, i: shapes[1],
    "argmax": lambda first, s, attrs, i: _reduce(first, s, {**attrs, "axes": (attrs["axis"],)}, i),
    "pad": _pad,
    "tile": _tile,
    "expand": lambda first, s, attrs, i: tuple(attrs["shape"]),
    "reshape": lambda first, s, attrs, i: tuple(attrs["shape"]),
    "sdpa": lambda first, s, attrs, i: None if s[2] is None else (*first[:-1], s[2][-1]),
    "shape": lambda first, s, attrs, i: (len(range(len(first))[attrs["start"] : attrs["end"]]),),
}
