"""Steps that every recogniser takes: past what changes no number, and to what never changes."""

from __future__ import annotations

from collections.abc import Iterator

from ..values import Value

LAYOUT = {"reshape", "transpose", "unsqueeze", "squeeze", "expand", "slice", "select", "split"}
END = 1 << 31  # an `end` from here on means: to the end


def floating(dtype: str | None) -> bool:
    return dtype is None or "float" in dtype


def passes(value: Value) -> bool:
    """Whether a value is its first operand again: identity, dropout, float-to-float cast, full slice, and the
    fake quantization of an activation (that of a weight is another weight)."""
    if value.op in ("identity", "dropout"):
        return True
    if value.op == "fake_quantize":
        return value.inputs[0] is not None and value.inputs[0].op != "const"
    if value.op == "cast":
        source = value.inputs[0]
        return source is not None and floating(value.dtype) and floating(source.dtype)
    return value.op == "slice" and whole(value)


def whole(value: Value) -> bool:
    """Whether a slice keeps its whole axis."""
    attrs, source = value.attrs, value.inputs[0]
    if attrs["start"] != 0 or attrs["step"] != 1:
        return False
    if attrs["end"] is not None and attrs["end"] >= END:
        return True
    if source is None or source.shape is None or value.shape is None:
        return False
    axis = attrs["axis"]
    return source.shape[axis] is not None and source.shape[axis] == value.shape[axis]


def bare(value: Value) -> Value:
    """The value under identities, dropouts and casts."""
    while passes(value):
        source = value.inputs[0]
        assert source is not None
        value = source
    return value


def stored(weight: Value) -> Value:
    """What a weight is computed from where it is fake-quantized, or itself."""
    while weight.op == "fake_quantize" and weight.inputs[0] is not None:
        weight = weight.inputs[0]
    return weight


def users(value: Value) -> Iterator[Value]:
    """Who uses a value, seen through identities, dropouts and casts, in order."""
    stack = list(reversed(value.users))
    while stack:
        user = stack.pop()
        if passes(user):
            stack += reversed(user.users)
        else:
            yield user


def only_user(value: Value) -> Value | None:
    """The one user of a value, or None when there are none or several."""
    found = list(users(value))
    return found[0] if len(found) == 1 else None


def operands(value: Value) -> list[Value]:
    """A value's operands, without the absent ones, seen through identities."""
    return [bare(v) for v in value.inputs if v is not None]


class Statics:
    """Which values come from constants alone. One instance a graph: answers are kept."""

    def __init__(self) -> None:
        self._known: dict[Value, bool] = {}

    def __call__(self, value: Value) -> bool:
        stack = [value]
        while stack:
            top = stack[-1]
            if top in self._known:
                stack.pop()
            elif top.op in ("const", "input") or not any(v is not None for v in top.inputs):
                self._known[stack.pop()] = top.op == "const" or (
                    top.op == "full" and top.shape is not None and all(isinstance(d, int) for d in top.shape)
                )
            else:
                waiting = [v for v in top.inputs if v is not None and v not in self._known]
                # One operand that varies settles it: the rest need no answer.
                if any(self._known.get(v) is False for v in top.inputs if v is not None):
                    self._known[stack.pop()] = False
                elif waiting:
                    stack.append(waiting[0])
                else:
                    self._known[stack.pop()] = True
        return self._known[value]

    def vector(self, value: Value, width: int | None = None) -> bool:
        """Whether a value is a parameter along the last axis: shape (width,) or (1, ..., width)."""
        shape = value.shape
        if not shape or not isinstance(shape[-1], int) or not self(value):
            return False
        return all(d == 1 for d in shape[:-1]) and shape[-1] > 1 and width in (None, shape[-1])
