"""Patterns over values: what a piece of a graph must look like, and how far the nearest miss got.

    scores = commutative("mul", op("matmul", var("query"), var("key")), const("scale"))
    masked = any_of("masking", none=scores, add=commutative("add", scores, var("mask")))
    match = find(op("softmax", masked), value)
    if not match:
        print(match.reason, match.node)

A pattern is matched backwards from its root, trying every order and alternative it allows. The first way that
fits is the match. When none does, the miss is the one that had matched the most operators before it failed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations
from typing import Any

from .values import Value


@dataclass(frozen=True)
class Match:
    """What fitted. `match["query"]` is the value captured under a name.

    root: the value matched. body: every operator's value inside, root first. tags: the alternatives chosen.
    """

    root: Value
    captures: Mapping[str, Value]
    body: tuple[Value, ...]
    tags: Mapping[str, str]

    def __getitem__(self, name: str) -> Value:
        return self.captures[name]

    def get(self, name: str) -> Value | None:
        """The value captured under a name, None where an optional part was absent."""
        return self.captures.get(name)

    def escaping(self, outputs: Sequence[Value] = ()) -> tuple[Value, ...]:
        """Values inside, other than the root, that something outside uses: they must outlive a fusion.

        Args:
            outputs: the graph's outputs, which count as uses.
        """
        inside, returned = set(self.body), set(outputs)
        inner = (value for value in self.body if value != self.root)
        return tuple(v for v in inner if v in returned or any(user not in inside for user in v.users))


@dataclass(frozen=True)
class NearMiss:
    """The nearest miss: why it failed, and the name of the value at which it did. False in a condition."""

    reason: str
    node: str
    reached: int = 0

    def __bool__(self) -> bool:
        return False


@dataclass(frozen=True)
class _State:
    captures: dict[str, Value] = field(default_factory=dict)
    body: tuple[Value, ...] = ()
    tags: dict[str, str] = field(default_factory=dict)


@dataclass
class _Trace:
    nearest: NearMiss | None = None

    def miss(self, reason: str, node: str, state: _State) -> None:
        if self.nearest is None or len(state.body) > self.nearest.reached:
            self.nearest = NearMiss(reason, node, len(state.body))


class Pattern:
    """A description of a value. `ways` yields a state for every way in which the value fits it."""

    def ways(self, value: Value | None, user: str, state: _State, trace: _Trace) -> Iterator[_State]:
        raise NotImplementedError


def find(pattern: Pattern, value: Value) -> Match | NearMiss:
    """Matches a pattern whose root is `value`."""
    trace = _Trace()
    for state in pattern.ways(value, value.name, _State(), trace):
        return Match(value, state.captures, tuple(dict.fromkeys(state.body)), state.tags)
    assert trace.nearest is not None
    return trace.nearest


def _bind(name: str | None, value: Value, state: _State, trace: _Trace) -> _State | None:
    """The state with a capture added; None where the name stands for another value already."""
    if name is None:
        return state
    known = state.captures.get(name, value)
    if known != value:
        trace.miss(f"'{name}' is {known.name} elsewhere", value.name, state)
        return None
    return replace(state, captures={**state.captures, name: value})


@dataclass(frozen=True)
class var(Pattern):  # noqa: N801
    """Any value, captured under a name; the same value wherever the name stands."""

    name: str

    def ways(self, value: Value | None, user: str, state: _State, trace: _Trace) -> Iterator[_State]:
        if value is None:
            trace.miss(f"'{self.name}' is absent", user, state)
        elif bound := _bind(self.name, value, state, trace):
            yield bound


@dataclass(frozen=True)
class const(Pattern):  # noqa: N801
    """A constant; with `value` a scalar, or an array of one element, close to it (relative 1e-5)."""

    name: str | None = None
    value: float | None = None

    def ways(self, value: Value | None, user: str, state: _State, trace: _Trace) -> Iterator[_State]:
        if value is None or value.op != "const":
            trace.miss(f"expected a constant, found {value.op if value else 'nothing'}", user, state)
            return
        if self.value is not None:
            data = value.const if math.prod(_sizes(value)) == 1 else None
            if data is None or not math.isclose(float(data.reshape(-1)[0]), self.value, rel_tol=1e-5):
                trace.miss(f"expected the constant {self.value:g}", value.name, state)
                return
        if bound := _bind(self.name, value, state, trace):
            yield bound


def _sizes(value: Value) -> list[int]:
    return [d if isinstance(d, int) else 0 for d in value.shape or ()]


class op(Pattern):  # noqa: N801
    """An operator by name, or by one of several ("gelu|relu"), with a pattern for each operand.

    Args:
        names: canonical names, alternatives separated by "|".
        operands: one pattern each; without any, the operands are not looked at.
        name: captures the operator's own value.
        attrs: attributes that must be equal.
    """

    def __init__(self, names: str, *operands: Pattern, name: str | None = None, **attrs: Any) -> None:
        self.names = names.split("|")
        self.operands = operands
        self.name = name
        self.attrs = attrs

    def orders(self, value: Value) -> Iterator[Sequence[Value | None]]:
        missing = (None,) * (len(self.operands) - len(value.inputs))
        yield (*value.inputs, *missing)

    def ways(self, value: Value | None, user: str, state: _State, trace: _Trace) -> Iterator[_State]:
        if value is None or value.op not in self.names:
            found = value.op if value else "nothing"
            trace.miss(
                f"expected {' or '.join(self.names)}, found {found}", value.name if value else user, state
            )
            return
        for key, wanted in self.attrs.items():
            if value.attrs.get(key) != wanted:
                trace.miss(f"{key} is {value.attrs.get(key)}, expected {wanted}", value.name, state)
                return
        if self.operands and len(value.inputs) > len(self.operands):
            trace.miss(f"has {len(value.inputs)} operands, expected {len(self.operands)}", value.name, state)
            return
        inside = replace(state, body=(*state.body, value))
        bound = _bind(self.name, value, inside, trace)
        if bound is None:
            return
        for inputs in self.orders(value) if self.operands else [()]:
            yield from self._operands(inputs, value.name, bound, trace)

    def _operands(
        self, inputs: Sequence[Value | None], user: str, state: _State, trace: _Trace, at: int = 0
    ) -> Iterator[_State]:
        if at == len(inputs):
            yield state
            return
        for way in self.operands[at].ways(inputs[at], user, state, trace):
            yield from self._operands(inputs, user, way, trace, at + 1)


class commutative(op):  # noqa: N801
    """An operator whose operands may stand in any order."""

    def orders(self, value: Value) -> Iterator[Sequence[Value | None]]:
        yield from permutations((*value.inputs, *(None,) * (len(self.operands) - len(value.inputs))))


class any_of(Pattern):  # noqa: N801
    """Alternatives, tried in turn; the match's `tags[tag]` names the one that fitted."""

    def __init__(self, tag: str, **alternatives: Pattern) -> None:
        self.tag = tag
        self.alternatives = alternatives

    def ways(self, value: Value | None, user: str, state: _State, trace: _Trace) -> Iterator[_State]:
        for name, pattern in self.alternatives.items():
            tagged = replace(state, tags={**state.tags, self.tag: name})
            yield from pattern.ways(value, user, tagged, trace)


@dataclass(frozen=True)
class optional(Pattern):  # noqa: N801
    """An operand that may be absent; what it would have captured is then absent from the match."""

    pattern: Pattern

    def ways(self, value: Value | None, user: str, state: _State, trace: _Trace) -> Iterator[_State]:
        if value is None:
            yield state
        else:
            yield from self.pattern.ways(value, user, state, trace)


class through(Pattern):  # noqa: N801
    """A pattern behind any number of one-operand operators ("identity|cast"), which join the body."""

    def __init__(self, names: str, pattern: Pattern) -> None:
        self.names = names.split("|")
        self.pattern = pattern

    def ways(self, value: Value | None, user: str, state: _State, trace: _Trace) -> Iterator[_State]:
        yield from self.pattern.ways(value, user, state, trace)
        if value is not None and value.op in self.names and value.inputs:
            inside = replace(state, body=(*state.body, value))
            yield from self.ways(value.inputs[0], value.name, inside, trace)
