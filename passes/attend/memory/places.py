"""Where a program counts the places of a text's tokens: what tables are read by, and rotations turn by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.fx import Node

from ....ir.errors import PassError
from ....ir.inputs.probe import feed
from ....ir.program import Program
from ...common.outputs import computed
from ..parts.site import Site
from ..positions.frequencies import turns

_LOOKUPS = {
    torch.ops.aten.embedding.default,
    torch.ops.aten.index_select.default,
    torch.ops.aten.index.Tensor,
}
_TOKENS = 7  # of the text that is counted


@dataclass(frozen=True)
class Places:
    """counted: integers, (length,) or (1 or batch, length). first: the number of a text's first place.
    readers: what goes on with them."""

    counted: Node
    first: int
    readers: tuple[Node, ...]

    @property
    def added(self) -> bool:
        """Whether rows of a table are taken by them that rotate nothing: learned positions."""
        return any(reader.target in _LOOKUPS and not turns(reader) for reader in self.readers)


def places(program: Program, sites: Sequence[Site]) -> list[Places]:
    """Integers that queries and keys, or the embeddings below them, get their positions from.

    Raises:
        PassError: places come in from outside, or are counted in another way than one by one.
    """
    for spec in program.inputs:
        if spec.role == "position_ids":
            raise PassError(
                f"positions come in as '{spec.name}', and the memory counts them itself: capture the model "
                "without that input"
            )
    above = _above(sites)
    length = _length(sites)
    counts: dict[Node, None] = {}
    masks = {node for site in sites if site.mask for node in site.mask[:1]}
    sources: dict[Node, bool] = {}  # whether no more than sizes, constants and the mask is in it
    for node in program.graph.graph.nodes:
        value = node.meta.get("val")
        operands = [x for x in node.all_input_nodes if isinstance(x.meta.get("val"), torch.Tensor)]
        if node.op == "placeholder":
            sources[node] = node in masks
        else:
            whole = not isinstance(value, torch.Tensor) or not value.is_floating_point()
            sized = str(node.target).startswith("aten.sym_size")
            sources[node] = sized or (whole and all(sources[x] for x in operands))
        if (
            isinstance(value, torch.Tensor)
            and value.dtype in (torch.int64, torch.int32)
            and node in above
            and sources[node]
            and 1 <= value.dim() <= 2
            and getattr(getattr(value.shape[-1], "node", None), "expr", None) == length
        ):
            counts[node] = None
    found = []
    for node in counts:
        if readers := tuple(user for user in node.users if user in above and user not in counts):
            first = _first(program, node)
            if first is not None:
                found.append(Places(node, first, readers))
    return found


def _above(sites: Sequence[Site]) -> set[Node]:
    """What queries, keys and values are computed from, masks of the attentions before left aside."""
    ends = {site.end for site in sites}
    stack = [value.native for s in sites for value in (s.attention.query, s.attention.key, s.attention.value)]
    found = set(stack)
    while stack:
        for source in stack.pop().all_input_nodes:
            if source not in found and source not in ends:
                found.add(source)
                stack.append(source)
    return found


def _length(sites: Sequence[Site]) -> object:
    node, axis = sites[0].lengthwise
    return getattr(getattr(node.meta["val"].shape[axis], "node", None), "expr", None)


def _first(program: Program, node: Node) -> int | None:
    """The number of the first place; None where all have the same, which says nothing of places.

    Raises:
        PassError: they are not counted one by one.
    """
    sizes = {symbol: min(max(low, _TOKENS), high) for symbol, (low, high) in program.symbols.items()}
    (value,) = computed(program, [node], feed(program, sizes))
    numbers = value.reshape(-1, value.shape[-1]).to(torch.int64)
    if bool((numbers == numbers[:, :1]).all()):
        return None
    first = int(numbers[0, 0])
    if bool((numbers != first + torch.arange(numbers.shape[1])).any()):
        raise PassError(f"'{node.name}' counts a text's places in a way that a memory can't go on with")
    return first
