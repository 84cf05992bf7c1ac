"""Norm: LayerNorm (arXiv:1607.06450), RMSNorm (arXiv:1910.07467), NoNorm (MobileBERT: arXiv:2004.02984).

One operator, or spelled out. The anchor of a spelled-out one is the product with the reciprocal root of a
mean square: c * rsqrt(mean(c^2) + epsilon), where c is x itself (RMSNorm) or x - mean(x) (LayerNorm);
scale and shift are then looked for below it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ..ops.evaluate import scalar
from ..values import Value, View
from .base import Miss, Norm
from .refused import Refused
from .walk import Statics, bare, users

MEANS = {"mean", "var"}


def norms(view: View, static: Statics) -> tuple[dict[Value, Norm], list[Miss]]:
    """Every Norm of a graph by its root, in topological order; positions are filled in by `place`."""
    found: dict[Value, Norm] = {}
    missed: list[Miss] = []
    inside: set[Value] = set()
    for value in view.values:
        if value in inside:
            continue
        try:
            norm = _norm(value, static)
        except Refused as near:
            missed.append(Miss("norm", near.value.name, near.reason))
            continue
        if norm is not None:
            found[norm.root] = norm
            inside.update(norm.body)
    for value in view.values:
        if value not in inside:
            norm = _no_norm(value, static)
            if norm is not None and not inside.intersection(norm.body):
                found[norm.root] = norm
                inside.update(norm.body)
    order = {value: i for i, value in enumerate(view.values)}
    return dict(sorted(found.items(), key=lambda item: order[item[0]])), missed


def _norm(value: Value, static: Statics) -> Norm | None:
    if value.op in ("layer_norm", "rms_norm"):
        return _operator(value, static)
    if value.op in ("mul", "div"):
        return _spelled_out(value, static)
    return _by_slope(value, static) if value.op == "add" else None


def _by_slope(value: Value, static: Statics) -> Norm | None:
    """x m + (bias - mean(x) m) with m = weight / sqrt(mean((x - mean(x))^2) + epsilon): TensorFlow's way."""
    for line, shift in _factors_of_sum(value):
        if line.op != "mul" or bare(shift).op != "sub":
            continue
        bias, taken = bare(shift).inputs[0], bare(shift).inputs[1]
        if bias is None or taken is None or bare(taken).op != "mul":
            continue
        for x, slope in _factors(line):
            mean = next((bare(a) for a, b in _factors(bare(taken)) if bare(b) == bare(slope)), None)
            source = mean.inputs[0] if mean is not None and mean.op == "mean" else None
            if mean is None or source is None or bare(source) != bare(x):
                continue
            width = x.shape[-1] if x.shape and isinstance(x.shape[-1], int) else None
            body = [value, line, bare(shift), bare(taken), mean]
            weight, root = _weighted_root(bare(slope), width, static, body)
            average, epsilon = _mean_and_epsilon(root, body) if root is not None else (None, None)
            square = _mean_of(average, body) if average is not None else None
            centred = _squared(square, body) if square is not None else None
            if centred is None or epsilon is None or not static.vector(bias, width):
                continue
            origin = _centred(bare(centred), body)
            if origin is None or bare(origin) != bare(x):
                continue
            for each in (mean, average):
                if each is not None:
                    _check_axis(each, value)
            ordered = tuple(dict.fromkeys(body))
            return Norm("layer_norm", value, x, weight, bias, epsilon, "other", ordered)
    return None


def _weighted_root(
    slope: Value, width: int | None, static: Statics, body: list[Value]
) -> tuple[Value | None, Value | None]:
    """(weight, s) of weight / sqrt(s), each None where it is missing."""
    candidates: list[tuple[Value, Value | None]] = [(slope, None)]
    if slope.op == "mul":
        candidates += [(a, b) for a, b in _factors(slope) if static.vector(b, width)]
    for reciprocal, weight in candidates:
        found = _reciprocal_root(reciprocal)
        if found is not None:
            body += [slope, *found[1]]
            return weight, found[0]
    return None, None


def _operator(value: Value, static: Statics) -> Norm:
    x, weight, bias = [*value.inputs, None, None][:3]
    assert x is not None
    axis, rank = value.attrs.get("axis", -1), len(value.shape or ())
    if axis != -1 and rank and axis != rank - 1:
        raise Refused(value, f"normalises over the axes from {axis} on, not over the last alone")
    norm = Norm(value.op, value, x, weight, bias, value.attrs["epsilon"], "other", (value,))  # type: ignore[arg-type]
    return norm if weight is not None else _affine(norm, static)


def _spelled_out(value: Value, static: Statics) -> Norm | None:
    for centred, factor in _factors(value):
        root = _reciprocal_root(factor) if value.op == "mul" else _root(factor)
        if root is None:
            continue
        body = [value, *root[1]]
        mean, epsilon = _mean_and_epsilon(root[0], body)
        if mean is None:
            continue
        if epsilon is None:
            raise Refused(value, "divides by a root mean square without an epsilon inside the root")
        square = _mean_of(mean, body)
        if square is None:
            continue
        variance_of = mean.inputs[0] if mean.op == "var" else _squared(square, body)
        if variance_of is None:
            raise Refused(value, f"divides by the root of a mean of '{square.name}', which is no square")
        x, kind = _source(bare(variance_of), bare(centred), mean, body)
        if x is None:
            raise Refused(value, f"divides '{centred.name}' by the root mean square of '{variance_of.name}'")
        for each in body:
            if each.op in MEANS:
                _check_axis(each, value)
        ordered = tuple(dict.fromkeys(body))
        norm = Norm(kind, value, x, None, None, epsilon, "other", ordered)  # type: ignore[arg-type]
        return _affine(norm, static)
    return None


def _factors(value: Value) -> Iterator[tuple[Value, Value]]:
    a, b = value.inputs[0], value.inputs[1]
    if a is None or b is None:
        return
    yield a, b
    if value.op == "mul":
        yield b, a


def _reciprocal_root(value: Value) -> tuple[Value, list[Value]] | None:
    """(s, body) with value = 1/sqrt(s): rsqrt, reciprocal or 1/ of a root, or a power of -1/2."""
    value = bare(value)
    source = value.inputs[0] if value.inputs else None
    if source is None:
        return None
    if value.op == "rsqrt":
        return source, [value]
    if value.op == "pow" and scalar(value.inputs[1]) == -0.5:
        return source, [value]
    inner = None
    if value.op == "reciprocal":
        inner = _root(source)
    elif value.op == "div" and scalar(source) == 1 and value.inputs[1] is not None:
        inner = _root(value.inputs[1])
    return None if inner is None else (inner[0], [value, *inner[1]])


def _root(value: Value) -> tuple[Value, list[Value]] | None:
    value = bare(value)
    if value.op == "sqrt" or (value.op == "pow" and scalar(value.inputs[1]) == 0.5):
        assert value.inputs[0] is not None
        return value.inputs[0], [value]
    return None


def _mean_and_epsilon(value: Value, body: list[Value]) -> tuple[Value | None, float | None]:
    """(mean, epsilon) of what a root is taken of, each None where it is missing."""
    value = bare(value)
    if value.op != "add":
        return (value, None) if value.op in MEANS else (None, None)
    a, b = value.inputs[0], value.inputs[1]
    for mean, epsilon in ((a, scalar(b)), (b, scalar(a))):
        if mean is not None and epsilon is not None:
            body.append(value)
            return bare(mean), epsilon
    return None, None


def _mean_of(mean: Value, body: list[Value]) -> Value | None:
    """What a mean over an axis is taken of."""
    if mean.op in MEANS and mean.inputs[0] is not None:
        body.append(mean)
        return bare(mean.inputs[0])
    return None


def _squared(value: Value, body: list[Value]) -> Value | None:
    if value.op == "pow" and scalar(value.inputs[1]) == 2:
        body.append(value)
        return value.inputs[0]
    if value.op == "mul":
        a, b = value.inputs[0], value.inputs[1]
        if a is not None and b is not None and bare(a) == bare(b):
            body.append(value)
            return a
    return None


def _source(squared: Value, centred: Value, mean: Value, body: list[Value]) -> tuple[Value | None, str]:
    """(x, kind) from what is squared and what is scaled; x is None when they do not belong together."""
    if mean.op == "var":
        x = _centred(centred, body)
        return (x, "layer_norm") if x is not None and bare(x) == squared else (None, "")
    x, y = _centred(centred, body), _centred(squared, body)
    if x is not None and y is not None and bare(x) == bare(y):
        return x, "layer_norm"
    if centred == squared:
        return centred, "rms_norm"
    return None, ""


def _centred(value: Value, body: list[Value]) -> Value | None:
    """x, of x - mean(x)."""
    if value.op != "sub":
        return None
    x, mean = value.inputs[0], value.inputs[1]
    if x is None or mean is None or bare(mean).op != "mean":
        return None
    source = bare(mean).inputs[0]
    if source is None or bare(source) != bare(x):
        return None
    body += [value, bare(mean)]
    return x


def _check_axis(mean: Value, value: Value) -> None:
    source = mean.inputs[0]
    rank = len(source.shape) if source is not None and source.shape is not None else None
    axes = tuple(mean.attrs["axes"])
    last = axes == (-1,) or (rank is not None and axes == (rank - 1,))
    if not last:
        raise Refused(value, f"the mean runs over the axes {axes}, not over the last alone")
    if not mean.attrs["keepdim"]:
        raise Refused(value, "the mean does not keep its axis")
    if mean.attrs.get("correction", 0) != 0:
        raise Refused(value, "the variance is the unbiased one (divides by n - 1)")


def _affine(norm: Norm, static: Statics) -> Norm:
    """The norm with the scale and the shift that follow it."""
    width = norm.input.shape[-1] if norm.input.shape else None
    width = width if isinstance(width, int) else None
    scaled = _by_vector(norm.root, "mul", width, static)
    if scaled is None:
        return norm
    norm = replace(norm, root=scaled[0], weight=scaled[1], body=(*norm.body, scaled[0]))
    shifted = _by_vector(norm.root, "add", width, static) if norm.kind == "layer_norm" else None
    if shifted is None:
        return norm
    return replace(norm, root=shifted[0], bias=shifted[1], body=(*norm.body, shifted[0]))


def _by_vector(value: Value, op: str, width: int | None, static: Statics) -> tuple[Value, Value] | None:
    """(result, vector) where a value's only use is a product or sum with a parameter of its width."""
    found = list(users(value))
    if len(found) != 1 or found[0].op != op:
        return None
    others = [v for v in found[0].inputs if v is not None and bare(v) != bare(value)]
    if len(others) == 1 and static.vector(others[0], width):
        return found[0], others[0]
    return None


def _no_norm(value: Value, static: Statics) -> Norm | None:
    """x * weight + bias with parameters of x's width."""
    if value.op != "add":
        return None
    for product, bias in _factors_of_sum(value):
        width = bias.shape[-1] if bias.shape and static.vector(bias) else None
        if product.op != "mul" or not isinstance(width, int):
            continue
        for x, weight in _factors(product):
            if static.vector(weight, width) and not static(x) and x.shape and x.shape[-1] == width:
                return Norm("no_norm", value, x, weight, bias, 0.0, "other", (value, product))
    return None


def _factors_of_sum(value: Value) -> Iterator[tuple[Value, Value]]:
    a, b = value.inputs[0], value.inputs[1]
    if a is not None and b is not None:
        yield bare(a), b
        yield bare(b), a
