"""What a graph does with token ids: the tables it looks up, the ids it compares, and feeds of new ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch.fx import Node

from ....ir.errors import PassError
from ....ir.program import Program
from ....ir.values import GraphValue, GraphView
from ...common.fx_weights import Matrix, find, quantized
from ...manager.contract import Feed


class Translated(Sequence[Feed]):
    """Feeds, translated when one is asked for.

    Args:
        feeds: for the program before.
        program: which of its inputs are ids.
        kept: the old ids that stay, in ascending order: the new ids are their places.
        unknown: the old id that stands for those that went.
    """

    def __init__(self, feeds: Sequence[Feed], program: Program, kept: Sequence[int], unknown: int) -> None:
        self.feeds = feeds
        self.names = [spec.name for spec in program.inputs if spec.role in ROLES]
        self.kept = np.asarray(kept)
        self.unknown = int(np.searchsorted(self.kept, unknown))

    def __len__(self) -> int:
        return len(self.feeds)

    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return [self[i] for i in range(*number.indices(len(self)))]
        feed = self.feeds[number]
        return {**feed, **{name: self._new(feed[name]) for name in self.names}}

    def _new(self, ids: np.ndarray) -> np.ndarray:
        places = np.searchsorted(self.kept, ids).clip(max=len(self.kept) - 1)
        return np.where(self.kept[places] == ids, places, self.unknown).astype(ids.dtype)


ROLES = ("token_ids", "decoder_token_ids")
# What gives ids again, and what goes by their order alone, which stays.
_CARRY = frozenset(
    {
        "cast",
        "identity",
        "reshape",
        "unsqueeze",
        "squeeze",
        "expand",
        "transpose",
        "slice",
        "select",
        "concat",
    }
)
_ORDER = frozenset({"argmax", "lt", "le", "gt", "ge"})


@dataclass
class Uses:
    """tables: matrices whose rows are tokens, of `rows` rows each. compared: (comparison, position of the
    argument) of every number that ids are compared to, and `numbers`, those. ordered: names of what goes by
    the ids' order."""

    rows: int
    tables: list[Matrix]
    compared: list[tuple[Node, int]] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    ordered: list[str] = field(default_factory=list)


def uses(program: Program, view: GraphView) -> Uses:
    """How token ids are used.

    Args:
        view: of the program.

    Raises:
        PassError: ids are used in a way that other ids would change, named with its node.
    """
    if (what := quantized(program.graph)) is not None:
        raise PassError(f"the model is quantized already (it has {what}): prune the vocabulary before")
    inputs = [v for v, spec in zip(view.inputs, program.inputs, strict=True) if spec.role in ROLES]
    if not inputs:
        raise PassError("the model takes no token ids, so it has no vocabulary to prune")
    matrices, _ = find(program)
    by_call = {call: matrix for matrix in matrices for call, _ in matrix.lookups}
    found = Uses(0, [])
    looked: set[Node] = set()
    seen, stack = set(inputs), list(inputs)
    while stack:
        value = stack.pop()
        for user in value.users:
            if user.native in by_call and user.inputs[1] == value:
                looked.add(user.native)
                if by_call[user.native] not in found.tables:
                    found.tables.append(by_call[user.native])
            elif user.op in ("eq", "ne"):
                _compare(user, value, found)
            elif user.op in _CARRY and user not in seen:
                if user.op == "concat" and not all(operand in seen for operand in user.inputs):
                    continue  # until the last operand brings it here
                seen.add(user)
                stack.append(user)
            elif user.op in _ORDER:
                found.ordered += [user.name]
            elif user.op not in _CARRY and user.op != "dim":
                raise PassError(
                    f"{user.name} ({user.op}) computes with token ids, and other ids would change it"
                )
    for value in seen:
        for user in value.users:
            if user.op == "concat" and user not in seen:
                raise PassError(f"{user.name} joins token ids to others, which would not change with them")
    if any(value in seen for value in view.outputs):
        raise PassError("the model gives token ids back, and others would change what they say")
    _check(found, looked)
    return found


def _compare(user: GraphValue, ids: GraphValue, found: Uses) -> None:
    other = next((operand for operand in user.inputs if operand != ids), None)
    # A Python number among the operands: its native is (node, position).
    if other is None or other.op != "const" or not isinstance(other.native, tuple) or other.const is None:
        raise PassError(f"{user.name} compares token ids to what is no plain number: it cannot be followed")
    found.compared.append(other.native)
    found.numbers.append(int(other.const))


def _check(found: Uses, looked: set[Node]) -> None:
    if not found.tables:
        raise PassError("no table is looked up by the token ids: there is no vocabulary to prune")
    rows = {table.rows for table in found.tables}
    if len(rows) > 1:
        raise PassError(
            f"tables of {' and '.join(map(str, sorted(rows)))} tokens are looked up by the same ids"
        )
    found.rows = rows.pop()
    for table in found.tables:
        for call, _ in table.lookups:
            if call not in looked:
                raise PassError(f"{call.name} looks up {table.name} by ids that are no input of the model")
        known = {call for call, _ in table.lookups} | {call for call, *_ in table.products}
        for user in (user for reader in table.readers for user in reader.users):
            if user not in known:
                raise PassError(f"{user.name} reads all of {table.name}: it cannot be followed")
