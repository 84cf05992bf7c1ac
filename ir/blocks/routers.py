"""Routers of mixtures of experts: the choice that weighs what experts give, or that orders rows by expert."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..ops.evaluate import scalar
from ..values import Value
from .base import Linear, Router
from .walk import Statics, bare, users

LOOKUPS = {"embedding", "gather", "index"}
FURTHEST = 40  # operators between the experts' result and the router's projection
_TOP = ("aten.topk", "ai.onnx::TopK", "aten.max.dim", "aten.argmax", "ai.onnx::ArgMax")


def router(down: Value, experts: int, static: Statics, linears: Mapping[Value, Linear]) -> Router | str:
    """The router whose choice weighs the experts' results, as `root`: these, weighed; or what is wrong.

    Where nothing weighs them, what puts them back in the tokens' order has come from the choice, too."""
    weighed = next((user for user in _after(down) if user.op == "mul"), None)
    if weighed is None:
        return _unweighed(down, experts, static, linears)
    reached = {down}
    other = [v for v in weighed.inputs if v is not None and not _depends(v, reached)]
    if len(other) != 1:
        return "what weighs its result is part of it"
    return _chosen(weighed, other[0], experts, static, linears)


def _unweighed(down: Value, experts: int, static: Statics, linears: Mapping[Value, Linear]) -> Router | str:
    back = next((user for user in _after(down) if _looks_up(user) and user.inputs[0] == down), None)
    if back is None or back.inputs[1] is None:
        return "nothing weighs its result"
    found = _chosen(back, back.inputs[1], experts, static, linears, ordering=True)
    return found if isinstance(found, Router) else f"nothing weighs its result and {found}"


def _looks_up(value: Value) -> bool:
    return len(value.inputs) > 1 and (value.op in LOOKUPS or "GatherND" in value.op)


def _chosen(
    root: Value,
    start: Value,
    experts: int,
    static: Statics,
    linears: Mapping[Value, Linear],
    ordering: bool = False,
) -> Router | str:
    """The router that is behind a value."""
    body: list[Value] = [root]
    stack, seen = [start], {start}
    chosen: list[int] = []
    ops: list[str] = []
    while stack and len(body) < FURTHEST:
        value = bare(stack.pop(0))
        linear = linears.get(value)
        if linear is not None and linear.out_features == experts:
            if not chosen:
                return "the router takes every expert, or chooses in a way that is not understood"
            scoring = next((op for op in reversed(ops) if op in ("softmax", "sigmoid")), "none")
            after = ops[: ops.index("top")]
            normalised = "div" in after or "softmax" in after
            return Router(root, linear, experts, chosen[-1], scoring, normalised, tuple(body))
        if static(value):
            continue
        top = value.op.startswith(_TOP)
        if top:
            count = value.attrs.get(
                "k", scalar(value.inputs[1]) if len(value.inputs) > 1 and value.inputs[1] else 1
            )
            chosen.append(int(count or 1))
        ops.append("top" if top else value.op)
        body.append(value)
        for operand in value.inputs:
            integer = operand is not None and "int" in str(operand.dtype) and not ordering
            if operand is not None and operand not in seen and not integer:
                seen.add(operand)
                stack.append(operand)
    return f"no projection to {experts} scores is behind what {'orders' if ordering else 'weighs'} its result"


def _depends(value: Value, on: set[Value]) -> bool:
    stack, seen = [value], {value}
    while stack and len(seen) < FURTHEST:
        top = stack.pop()
        if top in on:
            return True
        new = [v for v in top.inputs if v is not None and v not in seen]
        seen.update(new)
        stack += new
    return False


def _after(value: Value) -> Iterator[Value]:
    """What reads a value, past moves."""
    for user in users(value):
        if user.op in ("reshape", "squeeze", "unsqueeze", "transpose"):
            yield from _after(user)
        else:
            yield user
