"""The middle of an attention: from its softmax up to query and key, and down to the values."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from ..ops.evaluate import scalar
from ..values import Value
from .mask import HIDDEN
from .refused import Refused
from .sinks import check_sinks, on_last, with_sinks
from .walk import LAYOUT, Statics, bare, operands, passes, users

DEEPEST = 16  # operators between a product and the softmax, at most
VIEWS = {"reshape", "unsqueeze", "squeeze"}


@dataclass(frozen=True)
class Factor:
    """One factor of a product of scores. letters: a name per axis; equal names are matched or summed over."""

    value: Value
    letters: str


@dataclass(frozen=True)
class ScoreProduct:
    """A matmul or einsum of two computed values. scale: what the operator itself multiplies by."""

    root: Value
    left: Factor
    right: Factor
    letters: str
    scale: float = 1.0
    added: tuple[float, Value] | None = None


@dataclass
class Core:
    """softmax(gate * capped(scale * query key^T) + terms) value. letters: i queries, j keys, the rest as in
    `context`. softcap, gate, sinks, probabilities, scored: as Attention's."""

    query: Factor
    key: Factor
    value: Factor
    context: Factor
    scale: float
    terms: list[tuple[float, Value]] = field(default_factory=list)
    select: tuple[Value, bool] | None = None
    softcap: float = 0.0
    gate: Value | None = None
    sinks: Value | None = None
    probabilities: Value | None = None
    scored: Value | None = None
    is_causal: bool = False
    grouped: bool = False
    body: list[Value] = field(default_factory=list)


def sdpa_core(root: Value) -> Core:
    """The core inside a single scaled_dot_product_attention."""
    query, key, value, mask = [*root.inputs, None][:4]
    assert query is not None
    assert key is not None
    assert value is not None
    scale, size = root.attrs.get("scale"), query.shape[-1] if query.shape else None
    if scale is None:
        if not isinstance(size, int):
            raise Refused(root, "the head size, which its scale follows from, is unknown")
        scale = 1 / math.sqrt(size)
    rank = len(query.shape or ()) or 4
    batch = "bhgn"[: rank - 2]
    core = Core(
        Factor(query, batch + "id"), Factor(key, batch + "jd"), Factor(value, batch + "je"),
        Factor(root, batch + "ie"), scale, softcap=root.attrs.get("softcap", 0.0),
        is_causal=bool(root.attrs.get("causal")),
        grouped=bool(root.attrs.get("gqa")), body=[root],
    )  # fmt: skip
    if mask is not None:
        if mask.dtype == "bool":
            core.select = (mask, True)
        else:
            core.terms.append((1.0, mask))
    return core


def softmax_core(probabilities: Value, scores: Value, body: list[Value], static: Statics) -> Core:
    """The core around a softmax. Raises Refused.

    Args:
        probabilities, scores: the softmax's result and operand.
        body: what the softmax itself consists of.
    """
    below = _below(probabilities, static)
    scores, sinks, joining = with_sinks(scores, static)
    check_sinks(sinks, scores, below[2], probabilities)
    above = _above(scores, static, below[0][1].value)
    product = above.product
    body = [*above.body, *joining, *body, *below[1]]
    keys = product.letters[-1]
    left, right = product.left, product.right
    if keys in left.letters:
        left, right = right, left
    query_letter = product.letters[-2] if len(product.letters) > 1 else ""
    if keys not in right.letters or keys in left.letters or query_letter not in left.letters:
        raise Refused(product.root, "the product under the softmax does not run over queries and keys")
    weights, values, context = below[0]
    # Two products name their axes apart: the second's are renamed after the first's.
    named = dict(zip(weights.letters, product.letters, strict=False))
    if len(weights.letters) != len(product.letters):
        raise Refused(probabilities, "the scores change their number of axes before they meet the values")
    rename = lambda text: "".join(named.get(c, c.upper()) for c in text)
    right = _untransposed(right)
    return Core(
        left, right, Factor(values.value, rename(values.letters)),
        Factor(context.value, rename(context.letters)), above.scale, above.terms, above.select,
        above.softcap, above.gate, sinks, probabilities, product.root, body=body,
    )  # fmt: skip


def _untransposed(key: Factor) -> Factor:
    """The key before the transpose that only the product needed, where there is one."""
    value = bare(key.value)
    if value.op != "transpose" or value.inputs[0] is None:
        return key
    letters = "".join(key.letters[value.attrs["perm"].index(axis)] for axis in range(len(key.letters)))
    if letters != key.letters[:-2] + key.letters[-1] + key.letters[-2]:
        return key
    return Factor(value.inputs[0], letters)


def _below(
    probabilities: Value, static: Statics
) -> tuple[tuple[Factor, Factor, Factor], list[Value], Value | None]:
    """((weights, values, context), body, cut): the product with the values that the probabilities go into.

    cut: the slice that leaves some of the keys out of it, where there is one.
    """
    value, cut = probabilities, None
    body: list[Value] = []
    for _ in range(DEEPEST):
        step = None
        for user in users(value):
            product = _product(user, static)
            if product is not None:
                for weights, values in ((product.left, product.right), (product.right, product.left)):
                    if bare(weights.value) == value and weights.letters[-1] in values.letters:
                        if weights.letters[-1] in product.letters:
                            raise Refused(user, "the probabilities are not summed over the keys")
                        return (weights, values, Factor(user, product.letters)), [*body, user], cut
            elif (asked := _isnan_guard(user, value)) is not None:
                body += [asked, user]
                step = user
            elif user.op in VIEWS and _keeps_keys(user, value):
                body.append(user)
                step = user
            elif cut is None and user.op == "slice" and on_last(user):
                body.append(user)
                step = cut = user
            elif user.op in ("mul", "add", "where"):
                raise Refused(user, f"the probabilities are changed after the softmax ({user.op})")
        if step is None:
            break
        value = step
    raise Refused(
        probabilities, "its probabilities weigh no values: no product of two computed values follows"
    )


def _isnan_guard(user: Value, value: Value) -> Value | None:
    """isnan(p) of where(isnan(p), 0, p): rows that see no key at all give zero."""
    condition = user.inputs[0] if user.op == "where" else None
    guards = condition is not None and condition.op == "isnan" and operands(condition) == [value]
    return condition if guards else None


def _keeps_keys(view: Value, source: Value) -> bool:
    return bool(view.shape and source.shape and view.shape[-1] == source.shape[-1])


@dataclass
class Above:
    """What a softmax is taken of: see Core."""

    product: ScoreProduct
    scale: float
    terms: list[tuple[float, Value]]
    select: tuple[Value, bool] | None
    softcap: float
    gate: Value | None
    body: list[Value]


def _above(scores: Value, static: Statics, values: Value) -> Above:
    value, factor, softcap = bare(scores), 1.0, 0.0
    terms: list[tuple[float, Value]] = []
    select: tuple[Value, bool] | None = None
    gate: Value | None = None
    body: list[Value] = []
    for _ in range(DEEPEST):
        product = _product(value, static, learned=True)
        if product is not None:
            if product.added is not None:
                _check_outermost(value, softcap, gate)
                terms.append((factor * product.added[0], product.added[1]))
            found = [value, *body[::-1]]
            return Above(product, factor * product.scale, terms[::-1], select, softcap, gate, found)
        body.append(value)
        number = times(value)
        if number is not None:
            factor, value = factor * number[0], bare(number[1])
        elif value.op in ("add", "sub"):
            _check_outermost(value, softcap, gate)
            sign, value, term = _sum(value, static, values)
            if scalar(term) != 0:  # what stands for a term that this model goes without
                terms.append((sign * factor, term))
        elif value.op == "where":
            _check_outermost(value, softcap, gate)
            if select is not None:
                raise Refused(value, "two selections, one over the other, hide keys")
            value, select = selection(value)
        elif value.op == "tanh" and not softcap and value.inputs[0] is not None:
            softcap, value = abs(factor), bare(value.inputs[0])
        elif value.op == "mul" and gate is None and select is None:
            value, gate = _gated(value, static)
        elif value.op in VIEWS and value.inputs[0] is not None and _keeps_keys(value, value.inputs[0]):
            value = bare(value.inputs[0])
        elif value.op in ("maximum", "clip") and _floor(value) is not None:
            _check_outermost(value, softcap, gate)
            value = _floor(value)  # type: ignore[assignment]
        else:
            raise Refused(value, f"the scores come from {value.op}, not from query·key^T")
    raise Refused(value, "no product of query and key within reach of the softmax")


def _check_outermost(value: Value, softcap: float, gate: Value | None) -> None:
    """Refuses what is done to scores before they are capped or multiplied by a mask."""
    if softcap or gate is not None:
        later = "capped" if softcap else "multiplied by a mask"
        raise Refused(value, f"the scores are changed ({value.op}) before they are {later}")


def _gated(value: Value, static: Statics) -> tuple[Value, Value]:
    """(scores, what they are multiplied by)."""
    a, b = value.inputs[0], value.inputs[1]
    assert a is not None
    assert b is not None
    first, second = _toward(a, static, DEEPEST), _toward(b, static, DEEPEST)
    if first == second:
        raise Refused(value, "the scores come from mul, not from query·key^T")
    return (bare(a), b) if first else (bare(b), a)


def times(value: Value) -> tuple[float, Value] | None:
    """(number, other) of a product with, or a quotient by, a number."""
    if value.op not in ("mul", "div") or len(value.inputs) != 2:
        return None
    a, b = value.inputs
    assert a is not None
    assert b is not None
    number = scalar(b)
    if number is not None:
        return (number, a) if value.op == "mul" else (1 / number if number else math.inf, a)
    number = scalar(a) if value.op == "mul" else None
    return None if number is None else (number, b)


def _sum(value: Value, static: Statics, values: Value) -> tuple[float, Value, Value]:
    """(sign of the term, scores, term) of scores + term or scores - term.

    Of two products (text beside layout: Wang et al., 2022, arXiv:2202.13669, section 2.1) the scores are the
    one of which the keys are projected from what the values are projected from.
    """
    a, b = value.inputs[0], value.inputs[1]
    assert a is not None
    assert b is not None
    first, second = _toward(a, static, DEEPEST), value.op == "add" and _toward(b, static, DEEPEST)
    both = False
    if first and second:
        first, second = (_keyed(v, static, values) for v in (a, b))
        both = first == second
    if both:
        raise Refused(value, "the scores add two products, and which is query·key^T cannot be told")
    if not first and not second:
        raise Refused(value, "the scores come from a sum without query·key^T")
    sign = 1.0 if value.op == "add" else -1.0
    return (sign, bare(a), b) if first else (sign, bare(b), a)


def _toward(value: Value, static: Statics, left: int) -> bool:
    """Whether a product of computed values lies under a value, through what may stand over scores."""
    return next(_under(value, static, left), None) is not None


def _under(value: Value, static: Statics, left: int) -> Iterator[ScoreProduct]:
    """The products of computed values under a value, through what may stand over scores."""
    value = bare(value)
    if left == 0:
        return
    product = _product(value, static, learned=True)
    if product is not None:
        yield product
        return
    number = times(value)
    if number is not None:
        yield from _under(number[1], static, left - 1)
    elif value.op in ("add", "sub", "where", "tanh", "mul", *VIEWS):
        for each in value.inputs[1:] if value.op == "where" else value.inputs:
            if each is not None and each.op != "const":
                yield from _under(each, static, left - 1)


def _keyed(scores: Value, static: Statics, values: Value) -> bool:
    """Whether the keys of a product under some scores are projected from what the values are."""
    source = _projected_from(values, static)
    for product in _under(scores, static, DEEPEST):
        keys = product.right if product.letters[-1] in product.right.letters else product.left
        if _projected_from(keys.value, static) == source:
            return True
    return False


def _projected_from(value: Value, static: Statics) -> Value:
    """What a key or value is a projection of; itself where none is met."""
    value = bare(value)
    for _ in range(DEEPEST):
        weighed = [v for v in value.inputs[1:2] if v is not None and static(v)]
        if value.op in ("linear", "matmul") and weighed:
            break
        number = times(value)
        following = number[1] if number else value.inputs[0] if value.inputs else None
        if following is None or not (number or value.op in LAYOUT or (value.op == "add" and weighed)):
            return value
        value = bare(following)
    return bare(value.inputs[0]) if value.inputs and value.inputs[0] is not None else value


def selection(value: Value) -> tuple[Value, tuple[Value, bool]]:
    """(scores, (mask, whether True keeps)) of a where that writes a large negative number over scores.

    Raises Refused when it writes anything else.
    """
    condition, yes, no = value.inputs[0], value.inputs[1], value.inputs[2]
    assert condition is not None
    for fill, scores, keeps in ((no, yes, True), (yes, no, False)):
        number = _number(fill)
        if number is None or scores is None:
            continue
        if number > HIDDEN:
            raise Refused(value, f"writes {number:g} over scores, which hides nothing")
        return bare(scores), (condition, keeps)
    raise Refused(value, "chooses between two sets of scores")


def _number(value: Value | None) -> float | None:
    """A number, or a tensor filled with one."""
    if value is not None and bare(value).op == "expand":
        value = bare(value).inputs[0]
    if value is not None and bare(value).op == "full":
        return float(bare(value).attrs["value"])
    return scalar(value)


def _floor(value: Value) -> Value | None:
    """x, of max(x, a large negative number)."""
    a, b = [*value.inputs, None][:2]
    low = scalar(b)
    if value.op == "clip" and len(value.inputs) > 2 and value.inputs[2] is not None:
        return None
    return None if a is None or low is None or low > HIDDEN else bare(a)


def _product(value: Value, static: Statics, learned: bool = False) -> ScoreProduct | None:
    """A product of two values of which neither is a parameter.

    learned: the first may come from parameters alone where it is queries (a learned probe, projected: Lee et
        al., 2019, arXiv:1810.00825, section 3.2).
    """
    factors = [v for v in value.inputs if v is not None]
    if value.op == "matmul" and len(factors) == 2:
        a, b = factors
        if static(b) or (static(a) and not (learned and _queries(a))):
            return None
        ranks = [len(v.shape) if v.shape is not None else 0 for v in (a, b)]
        if min(ranks) < 2:
            return None
        batch = "bhgn"[: max(ranks) - 2]
        left, right = batch[len(batch) - ranks[0] + 2 :] + "id", batch[len(batch) - ranks[1] + 2 :] + "dj"
        return ScoreProduct(value, Factor(a, left), Factor(b, right), batch + "ij")
    if value.op == "aten.baddbmm.default" and len(factors) == 3 and not any(static(v) for v in factors[1:]):
        added = (float(value.attrs.get("beta", 1)), factors[0])
        return ScoreProduct(
            value, Factor(factors[1], "bid"), Factor(factors[2], "bdj"), "bij",
            float(value.attrs.get("alpha", 1)), added,
        )  # fmt: skip
    if value.op == "einsum" and len(factors) == 2 and not any(static(v) for v in factors):
        left, arrow, out = value.attrs["equation"].partition("->")
        terms = left.split(",")
        if not arrow or "." in value.attrs["equation"] or len(terms) != 2:
            return None
        return ScoreProduct(value, Factor(factors[0], terms[0]), Factor(factors[1], terms[1]), out)
    return None


def _queries(value: Value) -> bool:
    """Whether what comes from parameters alone is a projection's (..., queries, size), and no weight."""
    while True:
        number = times(value)
        moved = number[1] if number else value.inputs[0] if passes(value) or value.op in LAYOUT else None
        if moved is None:
            return value.op in ("linear", "matmul", "add") and len(value.shape or ()) > 2
        value = moved


def spelled_softmax(value: Value) -> tuple[Value, list[Value]] | None:
    """(x, body) of exp(x - max(x)) / sum(exp(x - max(x))) over the last axis, or of exp(x) / sum(exp(x))."""
    if value.op != "div" or value.inputs[0] is None or value.inputs[1] is None:
        return None
    top, total = bare(value.inputs[0]), bare(value.inputs[1])
    if top.op != "exp" or total.op != "sum" or operands(total) != [top]:
        return None
    if not _last(total) or top.inputs[0] is None:
        return None
    x = bare(top.inputs[0])
    if x.op == "sub" and x.inputs[0] is not None and x.inputs[1] is not None:
        highest = bare(x.inputs[1])
        if highest.op == "max" and operands(highest) == [bare(x.inputs[0])] and _last(highest):
            return x.inputs[0], [highest, x, top, total, value]
    return x, [top, total, value]


def _last(reduction: Value) -> bool:
    source = reduction.inputs[0]
    rank = len(source.shape) if source is not None and source.shape is not None else 0
    axes = tuple(reduction.attrs["axes"])
    return bool(reduction.attrs["keepdim"]) and axes in ((-1,), (rank - 1,))


def anchors(values: list[Value]) -> Iterator[tuple[Value, Value, list[Value]]]:
    """(probabilities, scores, body) of every softmax, in one operator or spelled out."""
    for value in values:
        if value.op == "softmax" and value.inputs[0] is not None:
            yield value, value.inputs[0], [value]
        elif value.op == "div":
            found = spelled_softmax(value)
            if found is not None:
                yield value, *found
