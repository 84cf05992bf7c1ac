"""Which values of a graph can be held in another basis of the residual stream, and which need its own.

What is linear along the stream's axis, and the same in each channel, goes on in any basis: sums, products
with numbers, moves, tables, and products with weights on either side. Norms are told of by themselves. What
else reads the stream (a gelu over it, a maximum, pieces of it) needs its own channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from typing import Literal

from ....ir.blocks.base import Blocks, Norm
from ....ir.blocks.walk import bare
from ....ir.ops.axes import IndexMap
from ....ir.ops.coupling import Group
from ....ir.ops.evaluate import scalar
from ....ir.values import Value

# rotated: in any basis. even: the same in all channels. inner: within a norm. own: the stream's own channels.
Role = Literal["rotated", "even", "inner", "own"]

MOVES = {
    "identity", "dropout", "cast", "reshape", "transpose", "unsqueeze", "squeeze", "slice", "select", "split",
    "sum", "mean",
}  # fmt: skip
PRODUCTS = {"linear", "matmul", "conv1d", "conv2d"}
TABLES = {"embedding", "gather", "index"}
SIZES = {"shape", "dim"}


@dataclass
class Basis:
    """The roles of computed values along one group of coupled axes.

    axes: of the group's values and constants, the axis that is the stream's. role: of the computed ones.
    up: (value, user) where the user needs the stream's own channels. down: where the value has them and its
    user does not. norms: those over the stream, by root.
    """

    axes: dict[Value, int]
    role: dict[Value, Role] = field(default_factory=dict)
    up: list[tuple[Value, Value]] = field(default_factory=list)
    down: list[tuple[Value, Value]] = field(default_factory=list)
    norms: dict[Value, Norm] = field(default_factory=dict)


def basis(group: Group, blocks: Blocks) -> Basis | str:
    """The roles along a stream's group, or why it cannot be held in another basis."""
    axes: dict[Value, int] = {}
    for member in group.members:
        if member.map != IndexMap():
            return f"{member.value.name} holds its channels in blocks"
        if member.value in axes and member.value.tensor is None:
            return f"{member.value.name} has its channels along two axes"
        axes[member.value] = member.axis
    found = Basis(axes, norms={norm.root: norm for norm in blocks.norm if norm.root in axes})
    inner = {v: norm for norm in found.norms.values() for v in norm.body if v != norm.root}
    forced: set[Value] = set()
    tail = _tail(found, [residual.root for residual in blocks.residual])
    while True:
        found.role = _forward(found, inner, forced)
        more = (_backward(found) | _beside(found, inner, tail)) - forced
        if not more:
            break
        forced |= more
    for residual in blocks.residual:
        if found.role.get(residual.root) == "own":
            return f"{residual.root.name} is not linear in its channels"
    for value, role in found.role.items():
        outside = [user for user in value.users if user not in inner and user not in found.norms]
        if role == "inner" and any(found.role.get(user, "own") != "inner" for user in outside):
            return f"{outside[0].name} reads {value.name}, inside of a norm"
    _edges(found, inner)
    return found


def _forward(found: Basis, inner: Mapping[Value, Norm], forced: Set[Value]) -> dict[Value, Role]:
    role: dict[Value, Role] = {}
    for value in found.axes:  # in the graph's order
        if value.op == "const":
            continue
        if value in forced:
            role[value] = "own"
        elif value in inner and _follows_norm(inner[value], found, role):
            role[value] = "inner"
        elif value in found.norms:
            role[value] = "rotated" if _follows_norm(found.norms[value], found, role) else "own"
        else:
            role[value] = _role(value, found.axes, role)
    return role


def _follows_norm(norm: Norm, found: Basis, role: Mapping[Value, Role]) -> bool:
    """Whether a norm is over the stream, with numbers of its own that can be fitted anew."""
    stored = all(v is None or bare(v).tensor is not None for v in (norm.weight, norm.bias))
    last = found.axes[norm.root] == len(norm.root.shape or ()) - 1
    return stored and last and role.get(norm.input) == "rotated"


def _role(value: Value, axes: Mapping[Value, int], role: Mapping[Value, Role]) -> Role:
    operands = [v for v in value.inputs if v is not None]
    computed = [role.get(v) for v in operands if v in axes and v.op != "const"]
    constants = [v for v in operands if v in axes and v.op == "const"]
    first = operands[0] if operands else None
    if value.op == "full" or (value.op == "expand" and first not in axes):
        return "even"
    if computed and not constants and set(computed) == {"even"}:
        return "even"
    if value.op in MOVES | TABLES or value.op in ("expand", "tile"):
        return "rotated" if first in constants else role.get(first, "own") if first is not None else "own"
    if value.op in PRODUCTS:
        given = _given(value, axes)
        if given is None or value.attrs.get("groups", 1) != 1:
            return "own"
        return "rotated" if given.op == "const" else role.get(given, "own")
    if value.op in ("add", "sub", "concat", "stack"):
        alike = len(computed) + len(constants) == len(operands)
        return "rotated" if alike and "rotated" in computed and "even" not in computed else "own"
    if value.op == "where":
        chosen = operands[1:]
        zeros = all(v in axes or scalar(v) == 0 for v in chosen)
        taken = [role.get(v) for v in chosen if v in axes]
        return "rotated" if zeros and "rotated" in taken and not constants and "even" not in taken else "own"
    if value.op in ("mul", "neg") or (value.op == "div" and role.get(operands[0]) == "rotated"):
        return (
            "rotated" if not constants and computed.count("rotated") == 1 and "own" not in computed else "own"
        )
    return "own"


def _given(product: Value, axes: Mapping[Value, int]) -> Value | None:
    """The operand that the stream's axis of a product's result is taken from."""
    first, second = product.inputs[0], product.inputs[1]
    at_end = axes[product] == len(product.shape or ()) - 1
    if product.op in ("linear", "matmul"):
        return second if at_end else first
    return second if axes[product] == 1 else None


def _contracted(product: Value, operand: Value, axes: Mapping[Value, int]) -> bool:
    """Whether a product sums over the stream's axis of one of its first two operands, a computed one."""
    axis, last = axes[operand], len(operand.shape or ()) - 1
    if product.op in ("conv1d", "conv2d"):
        return axis == 1
    if operand == product.inputs[0]:
        return axis == last
    return axis == (last if product.attrs.get("transposed") else max(0, last - 1))


def _backward(found: Basis) -> set[Value]:
    """Values that have to have the stream's own channels because of those that read them or are read."""
    more: set[Value] = set()
    for value, role in found.role.items():
        last = found.axes[value] == len(value.shape or ()) - 1
        users = [user for user in value.users if found.role.get(user) not in (None, "inner")]
        needs = [user for user in users if found.role[user] == "own"]
        if role == "rotated" and needs:
            read = any(found.role.get(v) == "rotated" for v in value.inputs if v is not None)
            if not last or (not read and len(needs) == len(value.users)):
                more.add(value)
        if role == "even" and users and all(found.role[user] == "own" for user in users):
            more.add(value)
        if role == "own" and not last:
            more.update(u for u in users if found.role[u] == "rotated" and _through(value, u, found))
    return more


def _tail(found: Basis, sums: Iterable[Value]) -> set[Value]:
    """Values of the group that no residual sum depends on."""
    above, stack = set(sums), list(sums)
    while stack:
        for value in stack.pop().inputs:
            if value is not None and value in found.axes and value not in above:
                above.add(value)
                stack.append(value)
    return found.axes.keys() - above


def _beside(found: Basis, inner: Mapping[Value, Norm], tail: Set[Value]) -> set[Value]:
    """Values behind the layers that are made of the stream's own channels anyway: what divides a vector by
    its length reads the vector that the length is of."""
    more: set[Value] = set()
    for value, role in found.role.items():
        if value not in tail or role not in ("rotated", "own"):
            continue
        if role == "own" or any(not _follows(value, user, found, inner) for user in value.users):
            users = {user for user in value.users if found.role.get(user) == "rotated"}
            more |= {u for u in users if u in tail and u.op not in PRODUCTS and u not in found.norms}
    return more


def _edges(found: Basis, inner: Mapping[Value, Norm]) -> None:
    for value, role in found.role.items():
        for user in dict.fromkeys(value.users):
            if role == "rotated" and not _follows(value, user, found, inner):
                found.up.append((value, user))
            elif role == "own" and found.role.get(user) == "rotated" and _through(value, user, found):
                found.down.append((value, user))


def _through(value: Value, user: Value, found: Basis) -> bool:
    """Whether the stream's axis of a user is that of this operand, and not a weight's."""
    return user.op not in PRODUCTS or not _contracted(user, value, found.axes)


def _follows(value: Value, user: Value, found: Basis, inner: Mapping[Value, Norm]) -> bool:
    """Whether a user of a rotated value takes it as it is."""
    if user.op in PRODUCTS and _contracted(user, value, found.axes):
        others = [v for v in user.inputs[:2] if v is not None and v != value]
        known = any(v in found.axes and (v.op == "const" or found.role.get(v) == "rotated") for v in others)
        return known and user.attrs.get("groups", 1) == 1
    if user in inner:
        return found.role.get(inner[user].root) == "rotated"
    return user.op in SIZES or found.role.get(user, "own") != "own"
