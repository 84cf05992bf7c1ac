"""Which axes of which tensors must change together: heads, FFN width, hidden width, vocabulary.

Every operator says which of its axes are the same (`_RULES`), and unification (axes.py) closes that into
groups.
A group's members tell, for every tensor it runs through, which positions along which axis belong to
each of its units: identity, blocks of a head's rows, repeats for grouped queries, offsets in a fused
projection. An operator without a rule is refused by name; guessing that it is element-wise would prune
wrongly. Groups closed over edges with index maps are Torch-Pruning's idea (Fang et al., arXiv:2301.12900).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from math import isqrt, prod

import numpy as np

from ..errors import GraphwrightError
from ..values import Dim, GraphValue, GraphView, Value
from .axes import LARGEST, Atom, Concat, IndexMap, Merged, Term, cut, fix, leaves, unify
from .shapes import factors

Axes = tuple[Term | None, ...]  # None: an axis of unknown size


class DimsError(GraphwrightError):
    """The coupling of axes cannot be told."""


@dataclass(frozen=True)
class Member:
    """One place that a group runs through: positions map.indices([u]) along `axis` of `value` are unit u's.

    Where heads are merged with the batch, map.static is False: the positions depend on the call.
    """

    value: GraphValue
    axis: int
    map: IndexMap


@dataclass(frozen=True)
class Group:
    """Units that exist together or not at all.

    size: how many. members: constants and computed values alike, in the view's order. Among the computed
    ones are the operators that carry sizes as attributes: reshape, split, expand, slice, layer_norm, and
    sdpa, whose scale follows from head_dim unless it is given.
    kind: "vocabulary", "heads", "head_dim", "hidden", "width" or "other", a hint.
    fixed: why no unit can go ("an axis of the input 'pixel_values'"), empty when units can be removed.
    """

    size: int
    members: tuple[Member, ...]
    kind: str
    fixed: str

    def removed(self, units: Sequence[int]) -> dict[tuple[GraphValue, int], np.ndarray]:
        """For every (value, axis) of static size, the positions that go when these units go, ascending."""
        found: dict[tuple[GraphValue, int], list[np.ndarray]] = {}
        for member in self.members:
            if member.map.static:
                found.setdefault((member.value, member.axis), []).append(member.map.indices(units))
        return {place: np.unique(np.concatenate(parts)) for place, parts in found.items()}


def groups(view: GraphView) -> list[Group]:
    """Every group of more than one unit, in the order of its first member.

    Raises:
        DimsError: an operator is not known, named with its node.
    """
    coupling = _Coupling(view)
    members: dict[Atom, list[Member]] = {}
    for value in view:
        for axis, term in enumerate(coupling.axes[value]):
            for atom, where in leaves(term) if term is not None else ():
                if 1 < atom.size <= LARGEST:
                    members.setdefault(atom, []).append(Member(value, axis, where))
    return [Group(a.size, tuple(found), coupling.kind(a), a.fixed) for a, found in members.items()]


def groups_of(found: Iterable[Group], value: Value, axis: int) -> list[Group]:
    """The groups, among those found, that an axis is made of: two for one of heads x head_dim."""
    return [g for g in found if any(m.axis == axis and m.value == value for m in g.members)]


class _Coupling:
    """One run over a view: `axes` of every value, unified as the operators ask."""

    KINDS = ("vocabulary", "hidden", "heads", "head_dim", "width")

    def __init__(self, view: GraphView) -> None:
        self.axes: dict[GraphValue, Axes] = {}
        self._hints: list[tuple[Term, str]] = []
        self._primes: dict[str, int] = {}
        for value in view:
            if value.op not in _RULES:
                raise DimsError(
                    f"which axes the operator {value.op} ({value.name}) couples is not known: "
                    "give it a rule in ir/ops/coupling.py"
                )
            self.axes[value] = tuple(map(self._atom, value.shape or ()))
            unknown = [v for v in (value, *value.inputs) if v is not None and v.shape is None]
            if unknown:
                self.freeze(value, f"{unknown[0].name} has no known shape")
            else:
                _RULES[value.op](self, value)
        returned = set(view.outputs)
        for value in view:
            if not value.users and value not in returned and 0 not in (value.shape or ()):
                self.freeze_axes(value, range(len(self.axes[value])), "no value depends on it")
        for value in view.outputs:
            self.freeze_axes(value, range(len(self.axes[value])), f"an axis of the output {value.name}")
        self._kinds: dict[Atom, str] = {}
        for kind in self.KINDS:
            for term in (t for t, k in self._hints if k == kind):
                for atom, _ in leaves(term):
                    self._kinds.setdefault(atom, kind)

    def _atom(self, size: Dim) -> Term | None:
        """A fresh axis. Every symbol stands as a prime too large to be a size, so that sizes factor alike."""
        if size is None:
            return None
        number, symbols = factors(size)
        for symbol in symbols:
            if symbol not in self._primes:
                self._primes[symbol] = _prime_from(max(self._primes.values(), default=LARGEST) + 1)
            number *= self._primes[symbol]
        return Atom(number)

    def kind(self, atom: Atom) -> str:
        return self._kinds.get(atom, "other")

    def of(self, value: GraphValue | None) -> Axes:
        return self.axes[value] if value is not None else ()

    def hint(self, term: Term | None, kind: str) -> None:
        if term is not None:
            self._hints.append((term, kind))

    def same(self, a: Term | None, b: Term | None) -> None:
        """Couples two axes. Where their sizes aren't known to be equal, neither can change."""
        if a is not None and b is not None and a.size == b.size:
            unify(a, b)
        else:
            for term in (a, b):
                if term is not None:
                    fix(term, "coupled with an axis of another or unknown size")

    def align(self, a: Axes, b: Axes) -> None:
        """NumPy's broadcasting: axes are the same counted from the right, those of one element aside."""
        for x, y in zip(reversed(a), reversed(b), strict=False):
            if not any(term is not None and term.size == 1 for term in (x, y)):
                self.same(x, y)

    def freeze_axes(self, value: GraphValue | None, axes: Iterable[int], reason: str) -> None:
        for axis in axes:
            term = self.of(value)[axis]
            if term is not None:
                fix(term, reason)

    def freeze(self, value: GraphValue, reason: str) -> None:
        """Fixes everything that an operator touches."""
        for each in (value, *value.inputs):
            self.freeze_axes(each, range(len(self.of(each))), reason)


def _prime_from(number: int) -> int:
    return next(n for n in count(number) if all(n % d for d in range(2, isqrt(n) + 1)))


Rule = Callable[[_Coupling, GraphValue], None]


def _free(c: _Coupling, v: GraphValue) -> None:
    """A weight, or something made from sizes alone: nothing couples its axes."""


def _sizes(c: _Coupling, v: GraphValue) -> None:
    c.freeze_axes(v, [0], "a list of sizes")


def _elementwise(c: _Coupling, v: GraphValue) -> None:
    for operand in v.inputs:
        c.align(c.axes[v], c.of(operand))


def _fake_quantize(c: _Coupling, v: GraphValue) -> None:
    """Steps and zeros are of the tensor, or one for each position along an axis."""
    x, *steps = v.inputs
    c.align(c.axes[v], c.of(x))
    if v.attrs["axis"] is not None:
        for each in steps:
            c.same(c.axes[v][v.attrs["axis"]], c.of(each)[0])


def _frozen(c: _Coupling, v: GraphValue) -> None:
    c.freeze(v, f"{v.op} reads {v.name} by position")


def _input(c: _Coupling, v: GraphValue) -> None:
    c.freeze(v, f"an axis of the input {v.name}")


def _norm(c: _Coupling, v: GraphValue) -> None:
    _elementwise(c, v)
    if "softmax" not in v.op:
        c.hint(c.axes[v][-1], "hidden")


def _linear(c: _Coupling, v: GraphValue) -> None:
    x, weight, out = c.of(v.inputs[0]), c.of(v.inputs[1]), c.axes[v]
    rows, columns = (1, 0) if v.attrs["transposed"] else (0, 1)
    c.same(x[-1], weight[rows])
    c.same(out[-1], weight[columns])
    for a, b in zip(x[:-1], out[:-1], strict=True):
        c.same(a, b)
    if len(v.inputs) > 2:
        c.align(out, c.of(v.inputs[2]))
    c.hint(x[-1], "width")


def _matmul(c: _Coupling, v: GraphValue) -> None:
    a, b, out = c.of(v.inputs[0]), c.of(v.inputs[1]), c.axes[v]
    if len(a) < 2 or len(b) < 2:
        c.freeze(v, "a product with a vector")
        return
    c.same(a[-1], b[-2])
    c.same(out[-2], a[-2])
    c.same(out[-1], b[-1])
    c.align(out[:-2], a[:-2])
    c.align(out[:-2], b[:-2])
    if any(operand is not None and operand.op == "const" for operand in v.inputs):
        c.hint(a[-1], "width")
    elif len(out) == 4:
        c.hint(out[1], "heads")
        c.hint(a[-1], "head_dim")
        c.hint(b[-1], "head_dim")


def _sdpa(c: _Coupling, v: GraphValue) -> None:
    query, key, value, *rest = (c.of(operand) for operand in v.inputs)
    out = c.axes[v]
    c.same(query[-1], key[-1])
    c.same(key[-2], value[-2])
    c.same(out[-1], value[-1])
    c.same(out[-2], query[-2])
    c.align(out[:-2], query[:-2])
    for operand in (key, value):
        heads = operand[-3] if len(operand) > 2 else None
        if v.attrs["gqa"] and heads is not None and query[-3] is not None and heads.size < query[-3].size:
            c.same(query[-3], Merged((heads, Atom(query[-3].size // heads.size))))
        else:
            c.align(out[-3:-2], operand[-3:-2])
        c.align(out[:-3], operand[:-3])
    for mask in rest:
        c.align((*out[:-1], key[-2]), mask)
    if len(out) == 4:
        c.hint(out[1], "heads")
    c.hint(query[-1], "head_dim")
    c.hint(out[-1], "head_dim")


def _transpose(c: _Coupling, v: GraphValue) -> None:
    for term, source in zip(c.axes[v], v.attrs["perm"], strict=True):
        c.same(term, c.of(v.inputs[0])[source])


def _reshape(c: _Coupling, v: GraphValue) -> None:
    """Row-major order: a run of axes on one side is a run on the other as soon as their sizes agree."""
    source, target = list(c.of(v.inputs[0])), list(c.axes[v])
    while source and target and None not in (source[-1], target[-1]):
        left, right = [source.pop()], [target.pop()]
        while (m := _size(left)) != (n := _size(right)):
            axes, side = (source, left) if m < n else (target, right)
            if not axes or axes[-1] is None:
                break
            side.insert(0, axes.pop())
        if _size(left) != _size(right):
            source, target = source + left, target + right
            break
        c.same(_joined(left), _joined(right))
    while source and target and None not in (source[0], target[0]) and _size(source[:1]) == _size(target[:1]):
        c.same(source.pop(0), target.pop(0))
    for term in (*source, *target):
        if term is not None:
            fix(term, f"{v.name} reshapes it together with an axis of unknown size")


def _size(terms: Sequence[Term | None]) -> int:
    return prod(term.size for term in terms if term is not None)


def _joined(terms: Sequence[Term | None]) -> Term:
    """A run of axes as one."""
    parts = tuple(term for term in terms if term is not None)
    return parts[0] if len(parts) == 1 else Merged(parts)


def _unsqueeze(c: _Coupling, v: GraphValue) -> None:
    kept = [term for axis, term in enumerate(c.axes[v]) if axis not in v.attrs["axes"]]
    for a, b in zip(kept, c.of(v.inputs[0]), strict=True):
        c.same(a, b)


def _squeeze(c: _Coupling, v: GraphValue) -> None:
    kept = [term for axis, term in enumerate(c.of(v.inputs[0])) if axis not in v.attrs["axes"]]
    for a, b in zip(kept, c.axes[v], strict=True):
        c.same(a, b)


def _reduce(c: _Coupling, v: GraphValue) -> None:
    x, axes = c.of(v.inputs[0]), v.attrs["axes"]
    if v.attrs["keepdim"]:
        c.align(c.axes[v], x)
    else:
        for a, b in zip((t for axis, t in enumerate(x) if axis not in axes), c.axes[v], strict=True):
            c.same(a, b)
    if v.op == "mean" and axes == (len(x) - 1,):
        c.hint(x[-1], "hidden")


def _concat(c: _Coupling, v: GraphValue) -> None:
    axis, pieces = v.attrs["axis"], [c.of(operand) for operand in v.inputs]
    parts = [piece[axis] for piece in pieces]
    known = [part for part in parts if part is not None]
    if len(known) == len(parts):
        c.same(c.axes[v][axis], Concat(tuple(known)))
    for part in known if len(known) < len(parts) else ():
        fix(part, f"{v.name} joins it to an axis whose size is not static")
    for piece in pieces:
        for other, term in enumerate(piece):
            if other != axis:
                c.same(c.axes[v][other], term)


def _pieces(c: _Coupling, v: GraphValue, axis: int, sizes: Sequence[int | None], at: int) -> None:
    """The result is piece `at` of the operand's axis, cut into `sizes`; its other axes are the operand's."""
    x, out = c.of(v.inputs[0]), c.axes[v]
    for other, term in enumerate(x):
        if other != axis:
            c.same(out[other], term)
    whole = x[axis]
    if whole is None:
        return
    if v.shape is not None and v.shape[axis] == 0:  # such as what a rotation of everything leaves over
        return
    static = [size for size in sizes if size is not None]
    pieces = cut(whole, static) if len(static) == len(sizes) else None
    if pieces is None:
        fix(whole, f"{v.name} cuts it at a position that is not static")
        c.freeze_axes(v, [axis], f"{v.name} is cut at a position that is not static")
    else:
        c.same(out[axis], pieces[at])


def _slice(c: _Coupling, v: GraphValue) -> None:
    axis, start, end, step = (v.attrs[k] for k in ("axis", "start", "end", "step"))
    size = v.inputs[0].shape[axis] if v.inputs[0] is not None and v.inputs[0].shape else None
    if step != 1 or start is None or end is None or not isinstance(size, int):
        _pieces(c, v, axis, [None], 0)
        return
    sizes = [start, max(0, end - start), size - max(start, end)]
    _pieces(c, v, axis, [s for s in sizes if s], 1 if start else 0)


def _select(c: _Coupling, v: GraphValue) -> None:
    x, axis = c.of(v.inputs[0]), v.attrs["axis"]
    c.freeze_axes(v.inputs[0], [axis], f"{v.name} selects from it by position")
    for a, b in zip((*x[:axis], *x[axis + 1 :]), c.axes[v], strict=True):
        c.same(a, b)


def _gather(c: _Coupling, v: GraphValue) -> None:
    x, ids, axis = c.of(v.inputs[0]), c.of(v.inputs[1]), v.attrs.get("axis", 0)
    c.freeze_axes(v.inputs[0], [axis], f"{v.name} looks it up by index")
    if v.op == "embedding":
        c.hint(x[0], "vocabulary")
    for a, b in zip((*x[:axis], *ids, *x[axis + 1 :]), c.axes[v], strict=True):
        c.same(a, b)


def _index(c: _Coupling, v: GraphValue) -> None:
    """Neighbouring axes are looked up together, the indices' axes take their place, and the others stay."""
    axes, x = v.attrs["axes"], c.of(v.inputs[0])
    first, after = axes[0], axes[-1] + 1
    looked_up = len(c.axes[v]) - len(x) + len(axes)
    if axes != tuple(range(first, after)) or any(index and index.dtype == "bool" for index in v.inputs[1:]):
        _frozen(c, v)
        return
    c.freeze_axes(v.inputs[0], axes, f"{v.name} looks it up by index")
    for index in v.inputs[1:]:
        c.align(c.axes[v][first : first + looked_up], c.of(index))
    rest = (*c.axes[v][:first], *c.axes[v][first + looked_up :])
    for a, b in zip((*x[:first], *x[after:]), rest, strict=True):
        c.same(a, b)


def _expand(c: _Coupling, v: GraphValue) -> None:
    c.align(c.axes[v], c.of(v.inputs[0]))


def _pad(c: _Coupling, v: GraphValue) -> None:
    for axis, (term, pads) in enumerate(zip(c.axes[v], v.attrs["pads"], strict=True)):
        if pads == (0, 0):
            c.same(term, c.of(v.inputs[0])[axis])
        else:
            c.freeze_axes(v, [axis], f"{v.name} pads it")
            c.freeze_axes(v.inputs[0], [axis], f"{v.name} pads it")


def _tile(c: _Coupling, v: GraphValue) -> None:
    out, x = c.axes[v], c.of(v.inputs[0])
    for term, source in zip(reversed(out), reversed(x), strict=False):
        if term is None or source is None or term.size % source.size:
            c.same(term, source)
        else:
            c.same(term, Merged((Atom(term.size // source.size), source)))


def _argmax(c: _Coupling, v: GraphValue) -> None:
    x, axis = c.of(v.inputs[0]), v.attrs["axis"]
    c.freeze_axes(v.inputs[0], [axis], f"{v.name} is a position along it")
    if v.attrs["keepdim"]:
        c.align(c.axes[v], x)
    else:
        for a, b in zip((*x[:axis], *x[axis + 1 :]), c.axes[v], strict=True):
            c.same(a, b)


def _stack(c: _Coupling, v: GraphValue) -> None:
    axis, out = v.attrs["axis"], c.axes[v]
    c.freeze_axes(v, [axis], f"{v.name} stacks along it")
    for operand in v.inputs:
        for a, b in zip((*out[:axis], *out[axis + 1 :]), c.of(operand), strict=True):
            c.same(a, b)


def _conv(c: _Coupling, v: GraphValue) -> None:
    """Channels only; positions are read through a window, so they are fixed."""
    x, weight, out, count = c.of(v.inputs[0]), c.of(v.inputs[1]), c.axes[v], v.attrs["groups"]
    for value, first in ((v.inputs[0], 2), (v.inputs[1], 2), (v, 2)):
        c.freeze_axes(value, range(first, len(out)), f"{v.name} slides a window along it")
    c.same(x[0], out[0])
    c.same(out[1], weight[0])
    if count == 1:
        c.same(x[1], weight[1])
    elif x[1] is not None and weight[0] is not None and weight[1] is not None:
        lanes = Atom(count)
        c.same(x[1], Merged((lanes, weight[1])))
        c.same(weight[0], Merged((lanes, Atom(weight[0].size // count))))
    if len(v.inputs) > 2:
        c.same(out[1], c.of(v.inputs[2])[0])


def _einsum(c: _Coupling, v: GraphValue) -> None:
    equation = v.attrs["equation"]
    if "." in equation or "->" not in equation:
        c.freeze(v, f"the equation {equation} leaves axes out")
        return
    before, after = equation.split("->")
    letters: dict[str, Term | None] = dict(zip(after, c.axes[v], strict=True))
    for names, operand in zip(before.split(","), v.inputs, strict=True):
        for letter, term in zip(names, c.of(operand), strict=True):
            c.same(letters.setdefault(letter, term), term)
    if any(operand is not None and operand.op == "const" for operand in v.inputs):
        return
    for letter, term in letters.items():
        if all(letter in names for names in before.split(",")):
            c.hint(term, "heads" if letter in after else "head_dim")


_RULES: dict[str, Rule] = {
    "input": _input,
    **dict.fromkeys("const full range dim aten.eye.default".split(), _free),
    **dict.fromkeys(
        "abs add and cast ceil clip cos cumsum div dropout eq erf exp floor ge gelu gt identity isnan le "
        "log lt maximum minimum mod mul ne neg not or pow reciprocal relu round rsqrt sigmoid sign silu sin "
        "softplus sqrt sub tanh tril triu where xor com.microsoft::BiasGelu com.microsoft::FastGelu "
        "com.microsoft::Gelu com.microsoft::QuickGelu".split(),
        _elementwise,
    ),
    **dict.fromkeys(
        "softmax log_softmax layer_norm rms_norm com.microsoft::SkipLayerNormalization "
        "com.microsoft::SkipSimplifiedLayerNormalization".split(),
        _norm,
    ),
    "shape": _sizes,
    "linear": _linear,
    "matmul": _matmul,
    "sdpa": _sdpa,
    "transpose": _transpose,
    "reshape": _reshape,
    "unsqueeze": _unsqueeze,
    "squeeze": _squeeze,
    "expand": _expand,
    **dict.fromkeys(("mean", "sum", "max", "min", "l2"), _reduce),
    "concat": _concat,
    "stack": _stack,
    "split": lambda c, v: _pieces(c, v, v.attrs["axis"], v.attrs["sizes"], v.index),
    "slice": _slice,
    "select": _select,
    "embedding": _gather,
    "gather": _gather,
    "index": _index,
    "pad": _pad,
    "tile": _tile,
    "argmax": _argmax,
    "fake_quantize": _fake_quantize,
    "conv1d": _conv,
    "conv2d": _conv,
    "einsum": _einsum,
    # Everything below is read or written by position: its axes stay as they are.
    **dict.fromkeys("gather_elements ai.onnx::GatherND ai.onnx::ScatterND".split(), _frozen),
    # As is what sorts tokens by their experts, and what multiplies them there.
    **dict.fromkeys(
        "aten.topk.default aten.sort.default aten.histc.default aten.empty_like.default "
        "aten.index_put.default aten.floor_divide.default aten._grouped_mm.default "
        "transformers.grouped_mm_fallback.default".split(),
        _frozen,
    ),
}
