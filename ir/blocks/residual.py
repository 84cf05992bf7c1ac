"""Residual: stream + branch, and from the residuals, where each Norm stands.

A branch is an attention, a feed-forward, the sum of both (parallel layers), or a plain Linear; the stream
is what the branch was computed from, or what both were computed from. Feed-forwards of one group of features
each, side by side (SqueezeBERT's, spelled as products), are one branch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from ..values import Value, View
from .base import Attention, Embedding, Experts, FeedForward, Linear, Miss, Norm, Position, Residual
from .linear import grouped_source
from .scores import times
from .walk import Statics, bare, users

MOVES = {"reshape", "transpose", "squeeze", "unsqueeze"}
PIECES = MOVES | {"split"}
FURTHEST = 16  # steps back when looking for what two values have in common
CONE = 400  # values looked at when a Linear's branch goes through what is no block

Block = Attention | FeedForward | Experts | Linear


class Residuals:
    """The residual sums of a graph: `found` by root, and `missed`."""

    def __init__(
        self,
        view: View,
        static: Statics,
        attentions: Mapping[Value, Attention],
        feed_forwards: Mapping[Value, FeedForward | Experts],
        linears: Mapping[Value, Linear],
        norms: Mapping[Value, Norm],
        taken: set[Value],
    ) -> None:
        self._static, self._norms = static, norms
        self._linears = linears
        self._blocks: dict[Value, Block] = {**linears, **feed_forwards, **attentions}
        self._joint: dict[Value, list[Block]] = {}
        self.found: dict[Value, Residual] = {}
        self.missed: list[Miss] = []
        for value in view.values:
            if value.op == "add" and value not in taken:
                self._visit(value)

    def _visit(self, value: Value) -> None:
        a, b = (bare(v) if v is not None else None for v in value.inputs)
        if a is None or b is None or not _hidden(value) or self._static(a) or self._static(b):
            return
        first, second = self._branch(a), self._branch(b)
        ranked = [max((_rank(block) for block in blocks), default=0) for blocks in (first, second)]
        if ranked == [1, 1]:  # two products: the later one is the branch
            ranked = [1 + _follows(blocks[0], other) for blocks, other in ((first, b), (second, a))]
        if ranked[0] == ranked[1] < 2:
            return
        if min(ranked) > 1:  # attention + feed-forward, waiting for the stream
            self._joint[value] = [*first, *second]
            return
        if ranked[0] > ranked[1]:
            blocks, branch, stream = first, value.inputs[0], b
        else:
            blocks, branch, stream = second, value.inputs[1], a
        assert branch is not None
        behind = self._behind(stream)
        if not all(self._belongs(stream, behind, block) for block in blocks):
            self.missed.append(
                Miss("residual", value.name, "the stream is not what the branch was computed from")
            )
            return
        of = {_of(block) for block in blocks}
        self.found[value] = Residual(value, stream, branch, of.pop() if len(of) == 1 else "other")

    def _belongs(self, stream: Value, behind: set[Value], block: Block) -> bool:
        if behind & self._behind(_reads(block)):
            return True
        unknown = isinstance(block, Attention) and block.q is None  # what projects may be several products
        return (unknown or isinstance(block, Linear)) and _comes_from(_reads(block), stream)

    def _branch(self, value: Value) -> list[Block]:
        """The blocks that a value is the result of, past moves, scales and a norm over them."""
        for _ in range(FURTHEST):
            value = bare(value)
            if value in self._blocks:
                return [self._blocks[value]]
            if value in self._joint:
                return self._joint[value]
            if value.op == "concat" and (beside := self._beside(value)):
                return beside
            if value in self._norms and value not in self.found:
                value = self._norms[value].input
                if bare(value) in self.found:
                    return []
                continue
            scaled = times(value)
            if scaled is not None:
                value = scaled[1]
            elif value.op == "mul" and any(v is not None and self._static.vector(v) for v in value.inputs):
                value = next(v for v in value.inputs if v is not None and not self._static(v))
            elif value.op == "mul" and (whole := _gated(value)) is not None:
                value = whole
            elif value.op in MOVES and value.inputs[0] is not None:
                value = value.inputs[0]
            else:
                return []
        return []

    def _beside(self, value: Value) -> list[Block]:
        """Feed-forwards whose results are put side by side, each of another piece of one value."""
        blocks = [self._blocks.get(bare(v)) for v in value.inputs if v is not None]
        found = [block for block in blocks if isinstance(block, FeedForward)]
        pieces = [bare(block.input) for block in found]
        whole = {piece.inputs[0] for piece in pieces if piece.op == "split"}
        last = value.shape is not None and value.attrs.get("axis") in (-1, len(value.shape) - 1)
        alike = last and len(found) == len(blocks) == len(set(pieces)) and len(whole) == 1
        return list(found) if alike else []

    def _behind(self, value: Value) -> set[Value]:
        """A value and what it was computed from by norms, Linears, residuals and moves."""
        seen: set[Value] = set()
        for _ in range(FURTHEST):
            value = bare(value)
            seen.add(value)
            if value in self._norms:
                value = self._norms[value].input
            elif value in self._linears:
                value = self._linears[value].input
            elif (source := grouped_source(value, self._linears)) != value:
                value = source
            elif value in self.found:
                value = self.found[value].stream
            elif value.op in PIECES and value.inputs[0] is not None:
                value = value.inputs[0]
            else:
                break
        return seen


def _gated(value: Value) -> Value | None:
    """What a product multiplies by one number a token, as the gate of a shared expert."""
    operands = [v for v in value.inputs if v is not None]
    narrow = [v.shape is not None and len(v.shape) > 1 and v.shape[-1] == 1 for v in operands]
    return operands[narrow.index(False)] if sorted(narrow) == [False, True] else None


def _follows(block: Block, value: Value) -> bool:
    return bare(_reads(block)) == value or _comes_from(_reads(block), value)


def _comes_from(value: Value, source: Value) -> bool:
    seen, queue = {value}, [value]
    for near in queue:
        for operand in near.inputs:
            if operand == source:
                return True
            if operand is not None and operand not in seen and len(seen) < CONE:
                seen.add(operand)
                queue.append(operand)
    return False


def _hidden(value: Value) -> bool:
    return value.shape is None or len(value.shape) >= 2


def _rank(block: Block) -> int:
    return 1 if isinstance(block, Linear) else 2


def _reads(block: Block) -> Value:
    if isinstance(block, Attention):
        return block.q.input if block.q is not None else block.query
    return block.input


def _of(block: Block) -> str:
    if isinstance(block, Linear):
        return "other"
    return "attention" if isinstance(block, Attention) else "feed_forward"


def place(
    norms: Mapping[Value, Norm],
    attentions: Mapping[Value, Attention],
    residuals: Mapping[Value, Residual],
    embeddings: Mapping[Value, Embedding],
) -> dict[Value, Norm]:
    """The norms with their positions."""
    inner = {n.root for a in attentions.values() for n in (a.q_norm, a.k_norm) if n is not None}
    streams = {bare(r.stream) for r in residuals.values()}
    branches = {bare(r.branch) for r in residuals.values()}
    embedded = {bare(root) for root in embeddings}
    placed: dict[Value, Norm] = {}
    last: list[Value] = []
    for root, norm in norms.items():
        source = _unmoved(norm.input)
        position: Position
        if root in inner:
            position = "inner"
        elif _unmoved(root) in branches:
            position = "other"
        elif source in embedded:
            position = "embedding" if source not in streams else "pre"
        elif source in residuals:
            if _streams_on(root, residuals) or root in streams:
                position = "post"
            elif any(user not in norm.body for user in _beyond_moves(source)):
                position = "pre"
            else:
                position = "final"
                last.append(root)
        else:
            position = "other"
        placed[root] = replace(norm, position=position)
    if any(n.position == "post" for n in placed.values()):
        for root in last:  # no stream goes on from the last layer's norm, whatever its kind
            placed[root] = replace(placed[root], position="post")
    return placed


def _unmoved(value: Value) -> Value:
    value = bare(value)
    while value.op in MOVES and value.inputs[0] is not None:
        value = bare(value.inputs[0])
    return value


def _beyond_moves(value: Value) -> Iterator[Value]:
    """Who uses a value, seen through moves too."""
    stack = [value]
    while stack:
        for user in users(stack.pop()):
            if user.op in MOVES:
                stack.append(user)
            else:
                yield user


def _streams_on(root: Value, residuals: Mapping[Value, Residual]) -> bool:
    """Whether a norm's result is added to, past moves."""
    return any(
        user in residuals and _unmoved(residuals[user].stream) == bare(root) for user in _beyond_moves(root)
    )
